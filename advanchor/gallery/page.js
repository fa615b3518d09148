"use strict";
// What a page does: puts its pictures in when their run is looked at, filters them, and moves the slider. Every text from
// the data becomes text, never markup.
const { pictures, words, runs } = JSON.parse(document.getElementById("data").textContent);
const picked = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const cut = document.getElementById("cut");
const contains = document.getElementById("words");
const seeds = document.getElementById("seed");

function made(kind, name, ...inside) {
  const element = document.createElement(kind);
  if (name) element.className = name;
  element.append(...inside);
  return element;
}

// What the detectors see: in words for a screen reader, in marks for the eye.
function inWords(seen, asked, rest) {
  if (!seen.length) return "no judge looked";
  return seen.map(([saw, beside], i) => {
    const also = rest < 0 ? "" : `, ${words[rest]} ${beside === rest ? "found" : `not found but ${words[beside]}`}`;
    return `detector ${i + 1}: ${saw === asked ? `${words[asked]} found` : `${words[asked]} not found but ${words[saw]}`}${also}`;
  }).join("; ");
}

function inMarks(title, seen, asked, rest, wanted) {
  const lines = seen.map(([saw, beside], i) => {
    const line = made("span", "", `${i + 1} `);
    line.append(made("span", (saw === asked) === wanted ? "" : "bad", `${saw === asked ? "✓" : "✗"} ${words[saw]}`));
    if (rest >= 0) line.append(" · ", made("span", beside === rest ? "" : "bad", `${beside === rest ? "✓" : "✗"} ${words[beside]}`));
    return line;
  });
  return made("div", "", made("span", "seedno", title), ...lines);
}

function image(number, alt) {
  const element = document.createElement("img");
  element.src = pictures[number];
  element.alt = alt;
  element.decoding = "async";
  return element;
}

function card([text, seed, asked, rest, before, after, was, now, happened], band) {
  const sides = before < 0 ? [["drawn", after, now]] : [["before", before, was], ["after", after, now]];
  const alone = sides.length === 1 ? " alone" : "";
  const pair = made("div", `pair${alone}`, ...sides.map(([side, number, seen]) =>
    image(number, `${side}: ${words[text]}, seed ${seed}. ${inWords(seen, asked, rest)}`)));
  const erased = band === "erase" || band === "anchor";
  const said = made("div", `said${alone}`, ...sides.map(([side, , seen]) =>
    inMarks(`${side}, seed ${seed}`, seen, asked, rest, side === "before" || !erased)));
  said.setAttribute("aria-hidden", "true"); // the alt texts say it
  const one = made("li", "card", made("figure", "", pair, said));
  one.dataset.happened = ` ${happened} `;
  one.dataset.seed = seed;
  one.dataset.text = words[text].toLowerCase();
  return one;
}

// Cards of one prompt stand together.
function fill(section) {
  for (const list of section.querySelectorAll(".prompts:empty")) {
    const { run, band } = list.dataset;
    const prompts = new Map();
    for (const one of runs[run][band] || []) {
      if (!prompts.has(one[0])) prompts.set(one[0], []);
      prompts.get(one[0]).push(card(one, band));
    }
    for (const [text, cards] of prompts) {
      list.append(made("li", cards.length > 1 ? "" : "one", made("p", "sentence", words[text]), made("ul", "seeds", ...cards)));
    }
  }
  filter();
}

function filter() {
  const show = picked("show"), text = contains.value.trim().toLowerCase(), seed = seeds.value;
  let there = 0, all = 0;
  for (const list of document.querySelectorAll(".prompts:not(:empty)")) {
    let here = 0, of = 0;
    for (const prompt of list.children) {
      let some = false;
      for (const one of prompt.querySelectorAll(".card")) {
        const { happened, text: own, seed: number } = one.dataset;
        one.hidden = !((!show || happened.includes(` ${show} `)) && own.includes(text) && (!seed || seed === number));
        some ||= !one.hidden;
        here += !one.hidden;
        of += 1;
      }
      prompt.hidden = !some;
    }
    const line = list.parentElement.querySelector(".shown"), left = Number(line.dataset.left);
    line.textContent = `${here} of ${of} shown${left ? `; ${left} more are left out of this page` : ""}`;
    there += here;
    all += of;
  }
  document.getElementById("count").textContent = all ? `${there} of ${all} shown` : "open a run to see its pictures";
}

function view() {
  document.body.classList.toggle("slide", picked("view") === "slide");
}

// A point or a name in a sweep leads to its run, which then opens.
function go() {
  const target = location.hash.startsWith("#run-") && document.getElementById(location.hash.slice(1));
  if (!target) return;
  target.open = true;
  fill(target);
  target.scrollIntoView();
  target.querySelector("summary").focus({ preventScroll: true });
}

const every = Object.values(runs).flatMap((bands) => Object.values(bands).flat());
for (const element of document.querySelectorAll(".n")) {
  const name = element.dataset.n;
  element.textContent = name ? every.filter((one) => one[8].split(" ").includes(name)).length : every.length;
}
for (const seed of [...new Set(every.map((one) => one[1]))].sort((a, b) => a - b)) {
  seeds.append(Object.assign(made("option", "", String(seed)), { value: seed }));
}
for (const element of document.querySelectorAll("input[name=show], #seed")) element.addEventListener("change", filter);
for (const element of document.querySelectorAll("input[name=view]")) element.addEventListener("change", view);
contains.addEventListener("input", filter);
cut.addEventListener("input", () => {
  document.body.style.setProperty("--cut", `${cut.value}%`);
  document.querySelector("input[name=view][value=slide]").checked = true;
  view();
});
for (const one of document.querySelectorAll("details.run")) one.addEventListener("toggle", () => one.open && fill(one));
for (const one of document.querySelectorAll("section.open")) fill(one);
addEventListener("hashchange", go);
// A link to the run that the address names already changes no address.
addEventListener("click", ({ target }) => {
  const link = target.closest("a");
  if (link && link.getAttribute("href") === location.hash) go();
});
filter();
go();
