// The studio's only script: acts with the token, keeps pages live, filters the list, enlarges curves.
"use strict";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem("strop-token", given);
  localStorage.setItem("strop-token", given);
  history.replaceState(null, "", location.pathname + location.search);
}
const token = () => sessionStorage.getItem("strop-token") || localStorage.getItem("strop-token") || "";

function say(text, bad) {
  const line = document.getElementById("said");
  line.textContent = text;
  line.hidden = false;
  line.classList.toggle("bad", Boolean(bad));
}

async function act(path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: {"Content-Type": "application/json", "X-Strop-Token": token()},
      body: JSON.stringify(body),
    });
  } catch {
    say("The studio does not answer. Start it again, and reload this page.", true);
    return;
  }
  const told = await answer.json();
  if (!answer.ok) {
    say(typeof told.detail === "string" ? told.detail : "This was not understood.", true);
    return;
  }
  say(told.said, false);
  if (told.open) location.href = `${told.open}#token=${encodeURIComponent(token())}`;
}

const sure = (element) => !element.dataset.sure || confirm(element.dataset.sure);

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button && sure(button)) {
    act(button.dataset.act, {...JSON.parse(button.dataset.body), path: button.dataset.path});
  }
  const link = event.target.closest("a[data-with-token]");
  if (link) link.hash = `token=${encodeURIComponent(token())}`;
  const large = event.target.closest("button.zoom");
  if (large) enlarge(large.dataset.metric, large.dataset.title);
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-act]");
  if (!form) return;
  event.preventDefault();
  if (sure(form)) act(form.dataset.act, Object.fromEntries(new FormData(form)));
});

// ---- live: what is open, ticked and scrolled to stays so

const live = document.getElementById("live");

// what a part of the page is, whatever stands before it: its heading within its figure or section
function key(element) {
  const around = element.closest("[data-metric], section");
  const name = around ? around.dataset.metric || around.getAttribute("aria-label") : "";
  const own = element.querySelector("summary") || element;
  return `${element.tagName} ${name} ${own.getAttribute("aria-label") || own.textContent.trim()}`;
}

async function renew() {
  const answer = await fetch(live.dataset.part);
  if (answer.status === 404) {
    say("What this page shows is not there any more.", true);
    return;
  }
  if (!answer.ok) return;
  const text = await answer.text();
  const open = new Set([...live.querySelectorAll("details[open]")].map(key));
  const ticked = new Set([...live.querySelectorAll("input:checked")].map((one) => one.value));
  const at = live.contains(document.activeElement)
    ? key(document.activeElement.closest("details") || document.activeElement) : null;
  live.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  live.querySelectorAll("details").forEach((one) => { one.open = open.has(key(one)); });
  live.querySelectorAll("input[type=checkbox]").forEach((one) => { one.checked = ticked.has(one.value); });
  decorate();
  narrow();
  if (at !== null) {
    const same = [...live.querySelectorAll("details, a, button, input")].find((one) => key(one) === at);
    if (same) (same.querySelector("summary") || same).focus();
  }
}

// a browser holds few connections to one place: tabs that nobody looks at let go of theirs
let source = null;

function listen() {
  if (source !== null || document.hidden) return;
  let waiting = false;
  source = new EventSource(live.dataset.live);
  source.addEventListener("changed", async () => {
    if (waiting) return;
    waiting = true;
    try {
      await renew();
    } finally {
      waiting = false;
    }
  });
}

function let_go() {
  if (source !== null) source.close();
  source = null;
}

if (live) {
  listen();
  addEventListener("pagehide", let_go);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      let_go();
    } else {
      renew();
      listen();
    }
  });
}

// ---- the list of runs

const filter = document.getElementById("filter");

function narrow() {
  if (!filter) return;
  const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  document.querySelectorAll("#runs tbody tr").forEach((row) => {
    const words = row.dataset.words.toLowerCase();
    row.hidden = !wanted.every((word) => words.includes(word));
  });
}
if (filter) filter.addEventListener("input", narrow);

// ---- one curve, large: plotly comes when it is wanted

let library = null;

function plotly() {
  library = library || new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.js";
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });
  return library;
}

async function enlarge(metric, title) {
  const dialog = document.getElementById("zoom");
  dialog.showModal();
  const [told] = await Promise.all([
    fetch(`${live.dataset.series}?metric=${encodeURIComponent(metric)}`).then((one) => one.json()),
    plotly(),
  ]);
  const style = getComputedStyle(document.body);
  const curves = Object.entries(told).map(([name, curve]) => ({...curve, name, mode: "lines", type: "scatter"}));
  Plotly.newPlot("zoom-plot", curves, {
    title: {text: title}, paper_bgcolor: style.backgroundColor, plot_bgcolor: style.backgroundColor,
    font: {color: style.color}, xaxis: {title: {text: "step"}}, margin: {t: 50},
  }, {responsive: true, displaylogo: false});
}

function decorate() {
  if (!live || !live.dataset.series) return;
  live.querySelectorAll("figure.panel[data-metric]").forEach((panel) => {
    const button = document.createElement("button");
    button.className = "zoom";
    button.dataset.metric = panel.dataset.metric;
    button.dataset.title = panel.querySelector("figcaption").textContent;
    button.textContent = "Enlarge";
    button.setAttribute("aria-label", `Enlarge ${button.dataset.title}`);
    panel.querySelector("figcaption").append(" ", button);
  });
}
decorate();
