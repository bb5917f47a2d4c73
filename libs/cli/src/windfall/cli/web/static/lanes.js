// A lane per site. Only those that are in view are elements; each draws its windows on a canvas of its own.

import { h, keyed, one, say } from "./dom.js";
import { colour } from "./theme.js";
import { clock, counted, figure, span, timeTicks } from "./words.js";

const HOUR = 3600000;
const SPARE = 4; // rows beyond each edge

export class Lanes {
  needs = ["sites", "windows", "trained", "links", "troubles", "clock"];

  constructor(store, again, open) {
    this.store = store;
    this.open = open;
    this.box = one("lanes");
    this.body = one("lanes-body");
    this.find = one("sites-find");
    this.show = one("sites-show");
    this.hours = one("sites-span");
    this.box.addEventListener("scroll", () => again("lanes"), { passive: true });
    this.needs.push("lanes");
    for (const control of [this.find, this.show, this.hours]) {
      control.addEventListener("input", () => {
        this.box.scrollTop = 0;
        again("all");
      });
    }
    new ResizeObserver(() => again("all")).observe(this.box);
    this.stamp = 0;
  }

  draw(dirty) {
    const { sites, touched } = this.store;
    const filtered = this.show.value || this.find.value;
    if (dirty.has("all") || sites.size !== this.known || (filtered && (dirty.has("sites") || dirty.has("troubles")))) this.choose();
    // Every lane moves with time and with the hours that are shown; otherwise only those whose site was spoken of.
    if (dirty.has("all") || dirty.has("clock") || !this.range) {
      this.stamp += 1;
      this.range = this.between();
      this.axis();
    }
    if (dirty.has("all") || !this.colours) this.measure();
    this.rows(touched);
    touched.clear();
  }

  choose() {
    const { sites, troublesOf } = this.store;
    const find = this.find.value.trim().toLowerCase();
    const show = this.show.value;
    const wanted = (site) =>
      (!find || site.name.includes(find) || (site.node_name ?? "").includes(find)) &&
      (!show || (show === "training" ? site.training === "training" && site.node === "ready"
        : show === "wrong" ? Boolean(troublesOf.get(site.name)?.size) : site.window === show));
    this.known = sites.size;
    this.chosen = [...sites.values()].filter(wanted).map((site) => site.name).sort();
    const all = this.chosen.length === sites.size;
    say(one("sites-count"), all ? String(sites.size) : `${this.chosen.length} of ${sites.size}`);
    const empty = one("lanes-empty");
    empty.hidden = this.chosen.length > 0;
    say(empty, sites.size ? "no site is like that" : "no site has said anything yet");
    this.box.setAttribute("aria-rowcount", String(this.chosen.length + 1));
  }

  measure() {
    const style = getComputedStyle(this.box);
    this.height = parseFloat(style.getPropertyValue("--lane")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.strip = undefined;
    this.ratio = Math.min(2, devicePixelRatio || 1);
    this.colours = Object.fromEntries(["window", "trained", "expected", "now", "grid"].map((name) => [name, colour(name)]));
  }

  // All that is kept up to what is expected; or so many hours, a quarter of them ahead.
  between() {
    const now = this.store.now();
    const hours = Number(this.hours.value);
    if (hours) return [now - 0.75 * hours * HOUR, now + 0.25 * hours * HOUR];
    let first = Infinity, last = -Infinity;
    for (const { opens, closes } of this.store.windows.values()) {
      if (opens < first) first = opens;
      if (closes > last) last = closes;
    }
    const low = Math.min(first, now - HOUR);
    const high = Math.max(now + (now - low) * 0.04, Math.min(last, now + 48 * HOUR));
    return [low - (high - low) * 0.01, high + (high - low) * 0.01];
  }

  axis() {
    const [low, high] = this.range;
    const axis = one("axis");
    const ticks = timeTicks(low, high, Math.max(2, axis.clientWidth / 70));
    this.ticks = ticks.map(([at]) => at);
    const told = ticks.filter(([at]) => Math.min(at - low, high - at) / (high - low) * axis.clientWidth > 20);
    keyed(axis, told, ([at]) => at, ([, text]) => h("span", {}, text), (element, [at]) => {
      element.style.left = `${(100 * (at - low)) / (high - low)}%`;
    });
  }

  rows(touched) {
    // First the whole height, then what of it is in view.
    const total = `${this.chosen.length * this.height}px`;
    if (this.body.style.height !== total) this.body.style.height = total;
    const head = this.box.firstElementChild.offsetHeight;
    const from = Math.max(0, Math.floor((this.box.scrollTop) / this.height) - SPARE);
    const to = Math.min(this.chosen.length, Math.ceil((this.box.scrollTop + this.box.clientHeight - head) / this.height) + SPARE);
    const seen = [];
    for (let place = from; place < to; place += 1) seen.push([this.chosen[place], place]);
    keyed(this.body, seen, ([name]) => name, ([name]) => this.make(name), (row, [name, place]) => {
      if (row.place !== place || row.high !== this.height) {
        row.place = place;
        row.high = this.height;
        row.style.transform = `translateY(${place * this.height}px)`;
        row.setAttribute("aria-rowindex", String(place + 2));
      }
      if (row.stamp !== this.stamp || touched.has(name)) {
        row.stamp = this.stamp;
        this.fill(row, name);
      }
    });
  }

  make(name) {
    const cell = (kind, ...content) => h("span", { role: "cell", class: `c-${kind}` }, ...content);
    const row = h("div", { role: "row", class: "lane" },
      cell("site", h("button", { type: "button", class: "link", onclick: () => this.open(name) }, name)),
      cell("window"), cell("node"), cell("training"), cell("link"),
      cell("time", h("canvas", { role: "img" })));
    row.canvas = row.querySelector("canvas");
    return row;
  }

  fill(row, name) {
    const { sites, links, troublesOf } = this.store;
    const site = sites.get(name);
    if (!site) return;
    const link = links.get(`${name}/hub`);
    row.dataset.window = site.window;
    row.classList.toggle("troubled", Boolean(troublesOf.get(name)?.size));
    const [, window, node, training, way] = row.children;
    say(window, site.window === "unknown" ? "–" : site.window);
    say(node, [site.node, site.node === "ready" ? site.node_name : ""].filter(Boolean).join(" ") || "–");
    say(training, trains(site));
    say(way, link ? `${figure(link.rtt_ms, 2)} ms, ${figure(link.up_mb_per_s, 2)} MB/s` : "–");
    way.classList.toggle("bad", Boolean(link?.degraded?.length));
    this.paint(row, name);
  }

  paint(row, name) {
    const { canvas } = row;
    // All strips are of one size; to ask each would lay the page out anew each time.
    if (!this.strip?.[0]) this.strip = [canvas.clientWidth, canvas.clientHeight];
    const [width, height] = this.strip;
    if (!width) return;
    const wide = Math.round(width * this.ratio), high = Math.round(height * this.ratio);
    if (canvas.width !== wide || canvas.height !== high) {
      canvas.width = wide;
      canvas.height = high;
    }
    const [low, up] = this.range;
    const now = this.store.now();
    const at = (ms) => Math.max(-4, Math.min(width + 4, ((ms - low) / (up - low)) * width));
    const pen = canvas.getContext("2d");
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = this.colours.grid;
    for (const tick of this.ticks) pen.fillRect(Math.round(at(tick)), 0, 1, height);
    const box = (since, until, top, thick) => pen.fillRect(at(since), top, Math.max(1.5, at(until) - at(since)), thick);
    let windows = 0, until;
    for (const window of this.store.windowsOf.get(name)?.values() ?? []) {
      if (!window.opened_at || window.state === "withdrawn") continue;
      const { opens, closes } = window;
      if (window.state !== "expected") {
        windows += 1;
        const open = window.state !== "closed";
        pen.fillStyle = this.colours.window;
        box(opens, open ? now : closes, height * 0.2, height * 0.6);
        if (open) until = closes;
      }
      if (window.state !== "closed" && closes !== undefined && closes > now) {
        pen.strokeStyle = this.colours.expected;
        pen.setLineDash([3, 2]);
        pen.lineWidth = 1.5;
        pen.strokeRect(at(Math.max(opens, now)), height * 0.2 + 0.75, at(closes) - at(Math.max(opens, now)), height * 0.6 - 1.5);
        pen.setLineDash([]);
      }
    }
    pen.fillStyle = this.colours.trained;
    for (const one of this.store.trainedOf.get(name)?.values() ?? []) box(one.from, one.to ?? now, height * 0.36, height * 0.28);
    pen.fillStyle = this.colours.now;
    pen.fillRect(at(now) - 0.75, 0, 1.5, height);
    const told = `${counted(windows, "windows")}${until ? `; open, expected until ${clock(until)}, in ${span(until - now)}` : ""}`;
    if (canvas.getAttribute("aria-label") !== told && (!canvas.told || canvas.told < this.stamp - 20)) {
      canvas.told = this.stamp;
      canvas.setAttribute("aria-label", told);
    }
  }
}

export function trains(site) {
  if (!site.training) return "–";
  if (site.training !== "training") return site.training;
  if (site.node !== "ready") return "–";
  const loss = site.loss_nats === undefined ? "" : `, loss ${figure(site.loss_nats)}`;
  return `${site.federation} round ${site.round}${loss}`;
}
