// The view of the fleet: the present and the decisions as fragments, the charts of uPlot, renewed while the page is seen.
"use strict";

(() => {
  const POLL_MS = 3000;
  const HOUR = 3600;
  /** Each curve: the name of its column, and its colour's variable. `stacked` curves are drawn on top of each other. */
  const CHARTS = {
    queue: { lines: [["visible", "--chart-1"], ["in_flight", "--chart-2"]], whole: true, filled: true },
    instances: {
      stacked: [["serving", "--chart-3"], ["booting", "--chart-4"], ["draining", "--chart-5"], ["stopped", "--chart-6"]],
      lines: [["needed", "--chart-ink"]], whole: true, dashed: true,
    },
    throughput: { lines: [["answers", "--chart-1"]], filled: true },
    wait: { lines: [["median", "--chart-3"], ["p95", "--chart-5"]], dots: true },
  };
  /** Steps of an axis of counts. */
  const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((first) => first * 10 ** power));
  const view = document.querySelector(".fleet");
  const problem = view.querySelector(".problem");
  const decimal = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
  const second = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const shown = (value) => (value === null || value === undefined ? "–" : decimal.format(value));
  const colour = (name) => getComputedStyle(view).getPropertyValue(name).trim();

  class Chart {
    constructor(place) {
      this.place = place;
      this.look = CHARTS[place.dataset.chart];
      this.stacked = this.look.stacked ?? [];
      this.curves = [...this.stacked, ...this.look.lines];
      this.labels = JSON.parse(place.dataset.labels);
      this.columns = null;
      new ResizeObserver(() => this.plot?.setSize(this.size())).observe(place);
    }

    size() {
      return { width: this.place.clientWidth, height: this.place.clientWidth < 420 ? 180 : 220 };
    }

    /** Show columns, from `since` to `until` in seconds. */
    show(columns, since, until) {
      this.columns = columns;
      this.since = since;
      this.until = until;
      this.place.closest("figure").querySelector(".nothing").hidden = columns.at.length > 0;
      this.describe();
      if (this.plot) {
        this.plot.setData(this.data());
      } else {
        this.draw();
      }
    }

    /** Draw again, with the colours that hold now. */
    draw() {
      if (!this.columns) return;
      this.plot?.destroy();
      this.plot = new uPlot(this.options(), this.data(), this.place);
    }

    /** The columns as uPlot takes them: of stacked curves the sums. */
    data() {
      const sums = [];
      for (const [name] of this.stacked) {
        const below = sums.at(-1);
        sums.push(this.columns[name].map((value, i) => (value === null ? null : value + (below?.[i] ?? 0))));
      }
      return [this.columns.at, ...sums, ...this.look.lines.map(([name]) => this.columns[name])];
    }

    /** Without a pointer on the chart, the legend has the latest values. */
    showLatest(plot) {
      const last = this.columns.at.length - 1;
      if (last >= 0 && (plot.cursor.idx ?? null) === null) plot.setLegend({ idx: last }, false);
    }

    /** Say the latest values to readers who do not see the chart. */
    describe() {
      const latest = (name) => shown(this.columns[name].at(-1)).replace("–", view.dataset.unknown);
      const said = this.place.dataset.summary.replace(/\[(\w+)\]/g, (_, name) => latest(name));
      this.place.setAttribute("aria-label", `${this.place.dataset.title}. ${said}`);
    }

    /** A time in the legend; without its date where the chart is short. */
    time(at) {
      return at ? (this.until - this.since > 6 * HOUR ? moment : second).format(at * 1000) : "–";
    }

    options() {
      const ink = colour("--pico-muted-color");
      const grid = { stroke: colour("--chart-grid"), width: 1 };
      const font = "12px system-ui, sans-serif";
      const axis = { stroke: ink, font, grid, ticks: { ...grid, size: 4 } };
      const stepped = this.look.whole ? uPlot.paths.stepped({ align: 1 }) : undefined;
      const unit = this.place.dataset.unit;
      const withUnit = (number) => (unit && number !== null ? `${shown(number)} ${unit}` : shown(number));
      const value = (name) => (_plot, _value, _series, i) => withUnit(i === null ? null : this.columns[name][i]);
      const series = this.curves.map(([name, variable], i) => {
        const stroke = colour(variable);
        const area = i < this.stacked.length || this.look.filled;
        return {
          label: this.labels[name], value: value(name), stroke, paths: stepped,
          width: i < this.stacked.length ? 1 : 2,
          fill: area ? stroke + (i < this.stacked.length ? "c0" : "24") : undefined, // colours are #rrggbb
          dash: this.look.dashed && i >= this.stacked.length ? [6, 4] : undefined,
          points: { show: Boolean(this.look.dots), size: 4, fill: stroke },
        };
      });
      return {
        ...this.size(), series: [{ label: view.dataset.time, value: (_, at) => this.time(at) }, ...series],
        bands: this.stacked.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })),
        scales: {
          x: { time: true, range: () => [this.since, this.until] },
          y: { range: (_plot, _low, high) => [0, Math.max((high ?? 0) * 1.08, this.look.whole ? 4 : 1)] },
        },
        axes: [
          { ...axis, space: 70, size: 32, values: (_, splits, _axis, _space, step) => splits.map((at) => (step >= 86400 ? day : clock).format(at * 1000)) },
          { ...axis, size: 48, incrs: this.look.whole ? WHOLE : undefined, values: (_, splits) => splits.map(withUnit) },
        ],
        cursor: { sync: { key: "fleet", scales: ["x", null] }, drag: { x: false, y: false }, points: { size: 7 } },
        hooks: { draw: [(plot) => this.showLatest(plot)], setLegend: [(plot) => this.showLatest(plot)] },
      };
    }
  }

  const charts = [...view.querySelectorAll("[data-chart]")].map((place) => new Chart(place));
  const parts = new Map();
  let seriesDue = 0;

  /** Put the new present and the new decisions in the place of the old ones, where they have changed. */
  function replace(page) {
    for (const fresh of new DOMParser().parseFromString(page, "text/html").body.children) {
      const before = parts.get(fresh.id);
      parts.set(fresh.id, fresh.outerHTML);
      if (before === fresh.outerHTML) continue;
      facerec.localise(fresh);
      document.getElementById(fresh.id).replaceWith(document.adoptNode(fresh));
    }
  }

  async function ask(address) {
    const response = await facerec.fetch(address);
    if (!response.ok) throw new Error(await response.text());
    return response;
  }

  async function refresh() {
    replace(await (await ask(view.dataset.now)).text());
    if (Date.now() < seriesDue) return;
    const series = await (await ask(view.dataset.series)).json();
    seriesDue = series.problem ? 0 : Date.now() + 1000 * series.every_seconds - POLL_MS / 2;
    for (const chart of charts) {
      const source = chart.place.dataset.source;
      // Records that cannot be read at the moment stay as they were: the reason is shown above.
      if (series.problem && source === "instances" && chart.columns) continue;
      const since = source === "traffic" ? Math.max(series.since, series.until - HOUR) : series.since;
      chart.show(series[source], since, series.until);
    }
  }

  let timer = 0;
  async function poll() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      await refresh();
      problem.hidden = true;
    } catch (error) {
      problem.textContent = error instanceof TypeError ? problem.dataset.failed : error.message;
      problem.hidden = false;
    }
    timer = setTimeout(poll, POLL_MS);
  }

  document.addEventListener("visibilitychange", poll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.draw()));
  poll();
})();
