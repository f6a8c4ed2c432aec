// The page of a run: its rounds by node as a picture, and its log as it comes.
"use strict";

const MOST_LINES = 5000;

const NAMES = { a: "answered", f: "failed", u: "no answer came", w: "not taken", t: "at work, no answer", n: "no answer was noted", "-": "not asked" };

function inWords(ms) {
  if (ms < 0) return "";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 10000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

class Timeline {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.tip = figure.querySelector(".tip");
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => { this.tip.hidden = true; });
    new ResizeObserver(() => this.draw()).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  async load() {
    const found = await answerOf(this.figure.dataset.url + location.search);
    if (!found) return;
    this.found = found;
    this.figure.hidden = this.found.rounds.length === 0;
    this.draw();
  }

  draw() {
    if (!this.found) return;
    const { rounds, nodes } = this.found;
    const style = getComputedStyle(this.figure);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const width = this.canvas.parentElement.clientWidth;
    const small = width < 500;
    const label = small ? 100 : 190;
    const row = Math.max(6, Math.min(22, Math.floor(640 / Math.max(1, nodes.length))));
    const column = Math.min(120, (width - label) / Math.max(1, rounds.length));
    const top = 22;
    const height = top + nodes.length * row + 2;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    this.canvas.style.height = `${height}px`;
    Object.assign(this, { label, row, column, top });
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const known = nodes.flatMap((one) => one.ms.filter((ms, at) => one.states[at] === "a" && ms >= 0)).sort((a, b) => a - b);
    const low = Math.log(1 + (known[0] || 0));
    const high = Math.log(1 + (known[known.length - 1] || 1));
    pen.fillStyle = colour("text");
    const every = Math.ceil(30 / column);
    rounds.forEach((one, at) => {
      if (at % every === 0) pen.fillText(one.name.slice(0, 6), label + at * column + 2, top / 2);
    });
    nodes.forEach((node, number) => {
      const y = top + number * row;
      if (row >= 12 || number % Math.ceil(12 / row) === 0) {
        pen.fillStyle = colour("text");
        pen.fillText(this.fit(pen, node.name || node.node_id, label - 16), 8, y + row / 2);
      }
      [...node.states].forEach((state, at) => {
        if (state === "-") return;
        pen.globalAlpha = 1;
        pen.fillStyle = colour(`k-${state}`);
        if (state === "a") {
          const part = high > low ? (Math.log(1 + node.ms[at]) - low) / (high - low) : 0.5;
          pen.globalAlpha = 0.18 + 0.82 * Math.min(1, Math.max(0, part));
        }
        pen.fillRect(label + at * column, y, Math.max(1, column - (column > 4 ? 1 : 0)), row - 1);
        pen.globalAlpha = 1;
      });
    });
  }

  fit(pen, text, width) {
    if (pen.measureText(text).width <= width) return text;
    const letters = [...text];
    while (letters.length && pen.measureText(letters.join("") + "…").width > width) letters.pop();
    return letters.join("") + "…";
  }

  point(event) {
    if (!this.found) return;
    const at = Math.floor((event.offsetX - this.label) / this.column);
    const number = Math.floor((event.offsetY - this.top) / this.row);
    const node = this.found.nodes[number];
    const round = this.found.rounds[at];
    this.tip.hidden = !node || !round;
    if (this.tip.hidden) return;
    const state = node.states[at];
    const taken = node.taken_ms[at] >= 0 ? `, taken after ${inWords(node.taken_ms[at])}` : "";
    const took = state === "-" || node.ms[at] < 0 ? "" : ` after ${inWords(node.ms[at])}`;
    const asked = state === "-" || !round.began_at ? "" : `; put out ${moments.format(new Date(round.began_at))}`;
    this.tip.textContent = `${node.name || node.node_id}, round ${round.name}: ${NAMES[state]}${took}${taken}${asked}`;
    const right = event.offsetX > this.canvas.clientWidth / 2;
    this.tip.classList.toggle("right", right);
    // Through the object model: the policy for styles forbids them in the markup alone.
    this.tip.style.left = right ? "auto" : `${event.offsetX + 12}px`;
    this.tip.style.right = right ? `${this.canvas.clientWidth - event.offsetX + 12}px` : "auto";
    this.tip.style.top = `${event.offsetY + 12}px`;
  }
}

class Log {
  constructor(box) {
    this.box = box;
    this.position = 0;
    this.colours = /\u001b\[[0-9;:]*m/g;
  }

  async load() {
    while (await this.more());
  }

  async more() {
    const found = await answerOf(`${this.box.dataset.url}?after=${this.position}`);
    if (!found || !found.text) return false;
    const { text, position } = found;
    this.position = position;
    document.getElementById("log-empty").hidden = true;
    const lines = text.replace(this.colours, "").replace(/\r\n?/g, "\n");
    this.box.append(lines);
    this.lines = (this.lines || 0) + lines.split("\n").length - 1;
    if (this.lines > MOST_LINES) {
      const kept = this.box.textContent.split("\n").slice(-MOST_LINES);
      this.box.textContent = kept.join("\n");
      this.lines = kept.length - 1;
    }
    if (document.getElementById("follow").checked) this.box.scrollTop = this.box.scrollHeight;
    return true;
  }
}

const figure = document.getElementById("timeline");
const timeline = figure && new Timeline(figure);
const log = new Log(document.getElementById("log"));
const parts = [timeline, log].filter(Boolean).map((part) => oneAtATime(() => part.load()));
const load = () => parts.forEach((one) => one());
load();
document.body.addEventListener("live", load);
