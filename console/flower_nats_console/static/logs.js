// Looks further through logs by itself, and shows lines as they are found.
"use strict";

const MOST_LINES = 500;
const LONGEST = 30000;

function shownLine(one) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/runs/${one.run_id}/log?at=${one.position}&line=${one.line}#line`;
  const time = document.createElement("time");
  time.dateTime = one.began_at;
  link.append(`${one.app}, `, time);
  const text = document.createElement("code");
  text.textContent = one.text;
  item.append(link, text);
  return item;
}

async function lookFurther(link) {
  const hits = document.getElementById("hits");
  const looked = document.getElementById("looked");
  let lines = Number(looked.dataset.lines);
  let runs = Number(looked.dataset.runs);
  const until = Date.now() + LONGEST;
  const most = hits.children.length + MOST_LINES;
  link.hidden = true;
  let further = link.getAttribute("href").replace("/logs?", "/logs.json?");
  while (further && hits.children.length < most && Date.now() < until) {
    looked.textContent = `${hits.children.length} lines found; ${lines} lines of ${runs} runs looked at, looking further…`;
    let found;
    try {
      const response = await fetch(further, { cache: "no-store" });
      if (!response.ok) break;
      found = await response.json();
    } catch {
      break;
    }
    hits.append(...found.hits.map(shownLine));
    writeTimes(hits);
    lines += found.looked.lines;
    runs += found.looked.runs;
    further = found.further;
  }
  looked.dataset.lines = lines;
  looked.dataset.runs = runs;
  looked.textContent = `${hits.children.length} lines found; ${lines} lines of ${runs} runs looked at${further ? ", and there is more." : "."}`;
  document.getElementById("none").hidden = Boolean(further) || hits.children.length > 0;
  link.href = further.replace("/logs.json?", "/logs?");
  link.hidden = !further;
}

const link = document.getElementById("further");
if (link) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    lookFurther(link);
  });
  lookFurther(link);
}
