// Live updates: one stream says "look again", and parts of the page are fetched anew by htmx.
// Times are written in the reader's zone.
"use strict";

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function writeTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-written])")) {
    const when = new Date(time.dateTime);
    time.title = `${time.dateTime} (${Intl.DateTimeFormat().resolvedOptions().timeZone})`;
    time.textContent = moments.format(when);
    time.dataset.written = "";
  }
}

const told = {};

// Says what is wrong with the connection; an empty text: nothing any more.
function tell(about, text) {
  told[about] = text;
  const line = document.getElementById("connection");
  const now = Object.values(told).filter(Boolean).join(" ");
  if (line.textContent !== now) line.textContent = now;
  document.body.classList.toggle("stale", now !== "");
}

const NO_SUPERLINK = "No superlink answers. Trying again…";
const NOT_PERMITTED = "NATS does not let this console ask superlinks. Trying again…";
const LATE = "An answer has not come in time. Trying again…";
const PATIENCE = 15000;

// Says how the last request has ended: status 0 is one that has no answer.
function tellAnswer(status) {
  tell("runtime", { 503: NO_SUPERLINK, 502: NOT_PERMITTED, 0: LATE }[status] || "");
}

// Gives an answer to a part of the page; null if there is none now. What is shown then stays.
async function answerOf(url) {
  try {
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    tellAnswer(response.status);
    return response.ok ? await response.json() : null;
  } catch {
    tellAnswer(0);
    return null;
  }
}

// Has a function run once at a time; what is asked for meanwhile, once more after that.
function oneAtATime(work) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await work();
    }
    running = false;
  };
}

function begin() {
  writeTimes(document);
  const run = document.querySelector("[data-run]");
  const events = new EventSource("/live" + (run ? `?run=${run.dataset.run}` : ""));
  let missed = false;
  const look = () => {
    missed = document.hidden;
    if (!missed) document.body.dispatchEvent(new CustomEvent("live"));
  };
  events.addEventListener("live", (event) => {
    tell("console", "");
    if (event.data !== "begun") look();
  });
  events.onerror = () => tell("console", "The console does not answer. Trying again…");
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && missed) look();
  });
  document.body.addEventListener("htmx:afterSwap", () => writeTimes(document));
  document.body.addEventListener("htmx:afterRequest", (event) => {
    tellAnswer(event.detail.xhr.status);
  });
  // What a reader has opened or closed stays so when a part of the page is fetched anew.
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const fresh = event.detail.serverResponse;
    if (!fresh.includes("<details")) return;
    const open = {};
    for (const one of document.querySelectorAll("details[id]")) open[one.id] = one.open;
    const scrolls = [...document.querySelectorAll(".wide")].map((one) => [one.scrollLeft, one.scrollTop]);
    document.body.addEventListener("htmx:afterSwap", () => {
      for (const [id, isOpen] of Object.entries(open)) {
        const one = document.getElementById(id);
        if (one) one.open = isOpen;
      }
      [...document.querySelectorAll(".wide")].forEach((one, number) => {
        if (scrolls[number]) [one.scrollLeft, one.scrollTop] = scrolls[number];
      });
    }, { once: true });
  });
}

// A page that could not be shown is fetched whole once it can be: its heading and scripts are missing here.
async function retry() {
  try {
    const response = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    tellAnswer(response.status);
    if (response.ok) location.reload();
  } catch {
    tellAnswer(0);
  }
}

begin();
if (document.querySelector("[data-retry]")) document.body.addEventListener("live", oneAtATime(retry));
