// The page of metrics: one number over rounds, of each node and in the mean.
"use strict";

class Plot {
  constructor(figure) {
    this.figure = figure;
    this.box = figure.querySelector(".plot");
    this.line = figure.querySelector(".tip-line");
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  async load() {
    const found = await answerOf(this.figure.dataset.url);
    if (!found) return;
    this.found = found;
    // What is under the pointer stays as long as the lines are the same ones.
    if (this.plot && this.drawn === this.lines()) this.plot.setData(this.data());
    else this.draw();
  }

  lines() {
    return this.found.nodes.map((node) => node.node_id).join();
  }

  size() {
    const width = this.box.clientWidth;
    return { width, height: Math.max(220, Math.min(380, width * 0.5)) };
  }

  resize() {
    if (this.plot && this.plot.width !== this.box.clientWidth) this.plot.setSize(this.size());
  }

  data() {
    const { rounds, mean, low, high, nodes } = this.found;
    return [rounds.map((_, at) => at), low, high, ...nodes.map((node) => node.values), mean];
  }

  draw() {
    const { rounds, nodes, name, is_logged } = this.found;
    const style = getComputedStyle(this.figure);
    const colour = (one) => style.getPropertyValue(`--${one}`).trim();
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    const alone = rounds.length === 1;
    const thin = nodes.map((node) => ({
      label: node.name || node.node_id,
      stroke: colour("k-w"),
      width: 1,
      alpha: 0.55,
      spanGaps: true,
      points: { show: alone },
    }));
    const edge = (label) => ({ label, stroke: "transparent", width: 0, spanGaps: true, points: { show: false } });
    const thick = { label: is_logged ? name : "mean", stroke: colour("accent"), width: 3, spanGaps: true, points: { show: rounds.length < 60, fill: colour("accent") } };
    if (this.plot) this.plot.destroy();
    this.plot = new uPlot({
      ...this.size(),
      legend: { show: false },
      scales: { x: { time: false, range: (_, least, most) => [least - 0.2, most + 0.2] } },
      cursor: { focus: { prox: 24 }, points: { size: 7 } },
      focus: { alpha: 0.25 },
      axes: [
        { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], values: (_, ticks) => ticks.map((at) => this.found.rounds[at] ?? "") },
        { ...axis, size: 64, values: (_, ticks) => ticks.map((one) => String(Number(one.toPrecision(4)))) },
      ],
      series: [{}, edge("a tenth has at most"), edge("nine tenths have at most"), ...thin, thick],
      bands: [{ series: [2, 1], fill: `color-mix(in srgb, ${colour("accent")} 18%, transparent)` }],
      hooks: { setCursor: [(plot) => this.point(plot)], setSeries: [(plot, number) => { this.focused = number; this.point(plot); }] },
    }, this.data(), this.box);
    this.drawn = this.lines();
    this.figure.dataset.drawn = name;
  }

  point(plot) {
    const at = plot.cursor.idx;
    if (at === null || at === undefined) { this.line.textContent = ""; return; }
    const { rounds, mean, name, is_logged } = this.found;
    const said = (one) => (one === null || one === undefined ? "none" : Number(one.toPrecision(6)));
    const series = this.focused ? plot.series[this.focused] : null;
    const more = series && this.focused < plot.series.length - 1 ? `; ${series.label}: ${said(plot.data[this.focused][at])}` : "";
    this.line.textContent = `Round ${rounds[at]}: ${is_logged ? name : "mean"} ${said(mean[at])}${more}`;
  }
}

const figureOfMetrics = document.getElementById("metrics");
if (figureOfMetrics) {
  const plot = new Plot(figureOfMetrics);
  const load = oneAtATime(() => plot.load());
  load();
  document.body.addEventListener("live", load);
  document.getElementById("metric").addEventListener("change", (event) => event.target.form.requestSubmit());
} else {
  // The first numbers have come: now there is something to choose from.
  document.body.addEventListener("htmx:afterSwap", () => {
    if (document.querySelector("#live table")) location.reload();
  });
}
