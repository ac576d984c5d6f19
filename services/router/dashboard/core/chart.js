// <time-chart>: lines over time. The library is loaded with the first chart.
//
// `chart`: { times (Unix seconds), lines: [{ name, values, color }], format(value) }.

import { number } from "./words.js";

const HEIGHT = 170;
const POINTS_OF = 30; // lines with fewer values have points, as single ones have no line
const DARK = matchMedia("(prefers-color-scheme: dark)");
let library = null;

async function loaded() {
  library ??= import("../vendor/uplot.js");
  return (await library).default;
}

class TimeChart extends HTMLElement {
  #chart = null;
  #plot = null;
  #names = "";
  #resized = new ResizeObserver(() => this.#resize());
  #themed = () => this.#draw(true);

  // lit sets it only if it is another object.
  set chart(chart) {
    this.#chart = chart;
    this.#draw();
  }

  connectedCallback() {
    this.setAttribute("role", "img");
    DARK.addEventListener("change", this.#themed);
    this.#resized.observe(this);
    this.#draw(true);
  }

  disconnectedCallback() {
    DARK.removeEventListener("change", this.#themed);
    this.#resized.disconnect();
    this.#plot?.destroy();
    this.#plot = null;
  }

  #resize() {
    if (this.#plot && this.clientWidth) this.#plot.setSize({ width: this.clientWidth, height: HEIGHT });
  }

  async #draw(anew = false) {
    if (!this.#chart || !this.isConnected) return;
    this.setAttribute("aria-label", described(this.getAttribute("label"), this.#chart));
    const UPlot = await loaded();
    if (!this.isConnected) return;
    const { times, lines } = this.#chart;
    const data = [times, ...lines.map(({ values }) => values)];
    const names = lines.map(({ name }) => name).join();
    if (this.#plot && !anew && names === this.#names) {
      this.#plot.setData(data);
    } else {
      this.#names = names;
      this.#plot?.destroy();
      this.#plot = new UPlot(options(this.#chart, this), data, this);
    }
    // Without a cursor, the legend has the values of the last whole step.
    if (this.#plot.cursor.idx == null) this.#plot.setLegend({ idx: times.length - 2 });
  }
}

function described(label, { lines, format = number }) {
  const each = lines.map(({ name, values }) => {
    const there = values.filter((value) => value !== null);
    if (!there.length) return `${name}: nothing`;
    return `${name}: ${format(there.at(-1))} last, ${format(Math.max(...there))} at most`;
  });
  return `${label}. ${each.join("; ")}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DATE = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" });
const LONGEST_DAY_S = 100_000;

const hours = (plot, splits) => {
  const { min, max } = plot.scales.x;
  const format = max - min > LONGEST_DAY_S ? DATE : CLOCK;
  return splits.map((seconds) => format.format(seconds * 1000));
};

const WHOLE = [1, 2, 5].flatMap((step) => Array.from({ length: 10 }, (_, power) => step * 10 ** power)).sort((a, b) => a - b);

function options({ lines, format = number }, element) {
  const style = getComputedStyle(element);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: color("faint"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width: element.clientWidth || 300,
    height: HEIGHT,
    cursor: { sync: { key: "time" }, drag: { x: false, y: false } },
    scales: { y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] } },
    axes: [
      { ...axis, size: 32, values: hours },
      {
        ...axis,
        size: 60,
        values: (_plot, splits) => splits.map((value) => format(value)),
        ...(format === number ? { incrs: WHOLE } : {}),
      },
    ],
    series: [
      {},
      ...lines.map(({ name, color: of, values }) => ({
        label: name,
        stroke: color(of),
        width: 1.5,
        points: { show: values.filter((value) => value !== null).length < POINTS_OF, size: 5, fill: color(of) },
        value: (_plot, value) => (value === null ? "–" : format(value)),
      })),
    ],
  };
}

customElements.define("time-chart", TimeChart);
