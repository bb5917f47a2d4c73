// Loss against time, tokens, energy or carbon: a chart, a sentence, and a table.

import { h, keyed, one, options, say, svg } from "./dom.js";
import { clock, count, counted, figure, instant, ticks, timeTicks } from "./words.js";

const UNITS = { time: "", tokens: "tokens", kwh: "kWh", kg: "kg CO2" };
const EDGE = { left: 46, right: 14, top: 10, bottom: 34 };

export class Loss {
  calm = 250; // ms between two drawings
  needs = ["rounds", "energy", "federations"];

  constructor(store, again) {
    this.store = store;
    this.federation = one("loss-federation");
    this.against = one("loss-against");
    this.box = one("loss-chart");
    for (const control of [this.federation, this.against]) control.addEventListener("input", () => again("rounds"));
    one("loss-table").closest("details").addEventListener("toggle", () => again("rounds"));
    new ResizeObserver(() => again("rounds")).observe(this.box);
  }

  draw() {
    const names = [...this.store.federations.keys()].sort();
    options(this.federation, names.map((name) => [name, name]), names.includes(this.federation.value) ? this.federation.value : names[0]);
    const points = this.points();
    this.chart(points);
    this.words(points);
    if (one("loss-table").closest("details").open) this.table(points);
  }

  points() {
    const drawn = cumulative(this.store);
    const found = [];
    for (const round of this.store.rounds.values()) {
      if (round.federation !== this.federation.value || round.state !== "completed" || !round.completed_at) continue;
      const time = Date.parse(round.completed_at);
      found.push({ round: round.round, time, tokens: round.tokens_total, loss: round.loss_nats, heldOut: round.held_out_nats });
    }
    found.sort((a, b) => a.time - b.time);
    for (const point of found) Object.assign(point, drawn(point.time));
    return found;
  }

  chart(points) {
    const width = Math.max(240, this.box.clientWidth), height = Math.max(180, Math.min(420, width * 0.45));
    const axis = this.against.value;
    const values = points.flatMap((point) => [point.loss, point.heldOut]).filter((value) => value !== undefined);
    if (values.length < 2) {
      this.box.replaceChildren(h("p", { class: "empty" }, "no two rounds are done yet"));
      return;
    }
    const [left, right] = range(points.map((point) => point[axis]));
    const [low, high] = range(values);
    const pad = (high - low) * 0.06 || 0.1;
    const x = (value) => EDGE.left + ((value - left) / (right - left || 1)) * (width - EDGE.left - EDGE.right);
    const y = (value) => height - EDGE.bottom - ((value - low + pad) / (high - low + 2 * pad)) * (height - EDGE.top - EDGE.bottom);
    const title = `Loss of ${this.federation.value} against ${this.against.selectedOptions[0].text}`;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, width, height });
    for (const value of ticks(low - pad, high + pad, 5)) {
      picture.append(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
      picture.append(svg("text", { class: "tick", x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, figure(value)));
    }
    const wanted = Math.max(2, width / 110);
    const across = axis === "time" ? timeTicks(left, right, wanted) : ticks(left, right, wanted).map((value) => [value, short(value)]);
    for (const [value, text] of across) {
      picture.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: EDGE.top, y2: height - EDGE.bottom }));
      picture.append(svg("text", { class: "tick", x: x(value), y: height - EDGE.bottom + 16, "text-anchor": "middle" }, text));
    }
    picture.append(svg("text", { class: "tick", x: width - EDGE.right, y: height - 4, "text-anchor": "end" }, axis === "time" ? "UTC" : UNITS[axis]));
    picture.append(svg("text", { class: "tick", x: 2, y: height - 4 }, "nats"));
    for (const [name, kind] of [["loss", "line-training"], ["heldOut", "line-heldout"]]) {
      const known = points.filter((point) => point[name] !== undefined);
      picture.append(svg("polyline", { class: kind, points: known.map((point) => `${x(point[axis]).toFixed(1)},${y(point[name]).toFixed(1)}`).join(" ") }));
      const last = known.at(-1);
      if (last) picture.append(svg("circle", { class: kind, cx: x(last[axis]), cy: y(last[name]), r: 3.5 }));
    }
    this.box.replaceChildren(picture);
  }

  words(points) {
    const last = points.at(-1);
    if (!last) return say(one("loss-caption"), "");
    const held = points.filter((point) => point.heldOut !== undefined).at(-1);
    const energy = this.store.energy.length ? `, for ${figure(last.kwh)} kWh and ${figure(last.kg * 1000)} g of CO2 as the ledgers have it so far` : "";
    say(one("loss-caption"), `Round ${last.round} at ${clock(last.time)}: training ${figure(last.loss)}` +
      `${held ? `, held out ${figure(held.heldOut)} nats` : " nats"}, after ${counted(last.tokens, "tokens")}${energy}.`);
  }

  table(points) {
    const heads = ["round", "when (UTC)", "training", "held out", "tokens", "kWh", "g CO2"];
    const table = one("loss-table");
    if (!table.tHead) {
      table.append(h("caption", {}, "Loss in nats, and what was drawn by then"), h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody"));
    }
    keyed(table.tBodies[0], points.slice(-200).reverse(), (point) => point.round, () => h("tr", {}, ...heads.map(() => h("td"))), (row, point) => {
      const cells = [point.round, instant(point.time), figure(point.loss), figure(point.heldOut), count(point.tokens), figure(point.kwh), figure(point.kg * 1000)];
      cells.forEach((text, place) => say(row.cells[place], String(text)));
    });
  }
}

const range = (values) => [Math.min(...values), Math.max(...values)];

const short = (value) => (value >= 1e9 ? `${figure(value / 1e9)} G` : value >= 1e6 ? `${figure(value / 1e6)} M` : value >= 1e4 ? `${figure(value / 1e3)} k` : figure(value));

// Energy and carbon drawn by an instant: each ledger entry was drawn evenly from its start to its end.
function cumulative({ energy, energyBefore }) {
  const marks = [];
  for (const { start, end, kwh, kg } of energy) {
    const lasts = Math.max(1, end - start);
    marks.push([start, kwh / lasts, kg / lasts], [start + lasts, -kwh / lasts, -kg / lasts]);
  }
  marks.sort((a, b) => a[0] - b[0]);
  let place = 0, at = marks[0]?.[0] ?? 0, kwh = energyBefore.kwh, kg = energyBefore.kg, power = 0, rate = 0;
  return (time) => {
    while (place < marks.length && marks[place][0] <= time) {
      kwh += power * (marks[place][0] - at);
      kg += rate * (marks[place][0] - at);
      at = marks[place][0];
      power += marks[place][1];
      rate += marks[place][2];
      place += 1;
    }
    const more = Math.max(0, time - at);
    return { kwh: kwh + power * more, kg: kg + rate * more };
  };
}
