// Shows one pair at a time and sends what is chosen. Texts are set as text, never as HTML.
"use strict";

const element = (id) => document.getElementById(id);
const KEYS = {1: "first", 2: "second", 0: "tie", ArrowLeft: "first", ArrowRight: "second",
              t: "tie", s: "skip"};
const token = new URLSearchParams(location.hash.slice(1)).get("token")
  || sessionStorage.getItem("strop-token") || "";
// a tab is one person's; the browser only remembers who was there last
let person = sessionStorage.getItem("strop-person") || "";
let pair = null;
let of = 0;
let busy = false;

async function ask(path, body) {
  const given = {headers: {"X-Strop-Token": token}};
  if (body) {
    given.method = "POST";
    given.headers["Content-Type"] = "application/json";
    given.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, given);
  } catch {
    throw new Error("The server does not answer. What you said is kept; start it again and reload.");
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(typeof told.detail === "string" ? told.detail : "not understood");
  return told;
}

async function go(path, body) {
  if (busy) return;
  busy = true;
  try {
    show(await ask(path, body));
    element("problem").hidden = true;
  } catch (error) {
    element("problem").textContent = error.message;
    element("problem").hidden = false;
  }
  busy = false;
}

const look = (number) => go(`api/pair?person=${encodeURIComponent(person)}`
  + (number === undefined ? "" : `&number=${number}`));

function show(told) {
  pair = told.pair;
  person = told.person;
  sessionStorage.setItem("strop-person", person);
  localStorage.setItem("strop-person", person);
  of = told.of;
  element("start").hidden = true;
  element("pair").hidden = pair === null;
  element("end").hidden = pair !== null;
  element("person").textContent = person;
  element("progress").max = told.of;
  element("progress").value = told.done;
  element("count").textContent = `${told.done} of ${told.of}`;
  const found = told.agreement;
  element("agreement").textContent = found === null ? ""
    : `${told.people} people agree on ${Math.round(100 * found.observed)} % of ${found.pairs} pairs`
      + ` (kappa ${found.kappa.toFixed(2)})`;
  if (pair === null) return;
  element("prompt").textContent = pair.prompt;
  element("criterion").textContent = pair.criterion;
  element("criterion").hidden = !pair.criterion;
  for (const [place, id] of ["first", "second"].entries()) {
    element(id).textContent = pair.answers[place];
    element(id).scrollTop = 0;
  }
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.classList.toggle("given", button.dataset.choice === pair.given);
  }
  element("back").disabled = pair.number === 0;
  element("forward").disabled = pair.given === null;
  scrollTo(0, 0);
}

const choose = (choice) => go("api/label", {person, item: pair.item, choice});
const back = () => look(pair === null ? of - 1 : pair.number - 1);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!element("start").hidden) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (pair !== null && key in KEYS) choose(KEYS[key]);
  else if (key === "b" && !(pair !== null && pair.number === 0)) back();
  else if (key === "n" && pair !== null && pair.given !== null) look(pair.number + 1);
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
element("back").addEventListener("click", back);
element("again").addEventListener("click", back);
element("forward").addEventListener("click", () => look(pair.number + 1));
element("person").addEventListener("click", start);
element("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  person = element("name").value.trim();
  look();
});

function start() {
  element("start").hidden = false;
  element("pair").hidden = true;
  element("end").hidden = true;
  element("name").value = person || localStorage.getItem("strop-person") || "";
  element("name").focus();
}

sessionStorage.setItem("strop-token", token);
const asked = new URLSearchParams(location.search).get("person");
if (asked) person = asked;
if (person) look();
else start();
