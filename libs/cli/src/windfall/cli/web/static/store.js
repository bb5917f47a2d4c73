// What the server has told, as it stands. Views are drawn from it once per frame, however much has come.

const KEPT_EVENTS = 1000;
const KEPT_PARTS = 30;
const TABLES = ["sites", "windows", "profiles", "federations", "links", "totals", "trained", "troubles", "rounds"];

export class Store {
  constructor() {
    this.dirty = new Set();
    this.touched = new Set(); // sites whose lane is not as it was drawn
    this.empty();
  }

  empty() {
    for (const name of TABLES) this[name] = new Map();
    this.events = [];
    this.topics = new Set();
    this.energy = [];
    this.energyBefore = { kwh: 0, kg: 0 };
    this.parts = new Map();
    this.windowsOf = new Map();
    this.trainedOf = new Map();
    this.troublesOf = new Map();
    this.clock = { now: Date.now(), speed: 1, heard: performance.now() };
    this.about = {};
  }

  snapshot(told) {
    this.empty();
    this.about = told.about;
    this.tick(told.clock);
    this.energyBefore = told.energy_before;
    for (const [name, parts] of Object.entries(told.parts)) this.parts.set(name, parts);
    for (const entry of told.energy) this.energy.push(entered(entry));
    for (const [table, rows] of Object.entries(told.rows)) this.merge(table, rows);
    for (const event of told.events) this.hear(event);
    for (const name of [...TABLES, "events", "energy", "parts"]) this.dirty.add(name);
  }

  change(told) {
    if (told.rows) for (const [table, rows] of Object.entries(told.rows)) this.merge(table, rows);
    if (told.event) this.hear(told.event);
    if (told.energy) {
      this.energy.push(entered(told.energy));
      this.dirty.add("energy");
    }
    if (told.part) {
      const [name, part] = told.part;
      if (!this.parts.has(name)) this.parts.set(name, []);
      this.parts.get(name).push(part);
      while (this.parts.size > KEPT_PARTS) this.parts.delete(this.parts.keys().next().value);
      this.dirty.add("parts");
    }
  }

  merge(table, rows) {
    const known = this[table];
    if (!(known instanceof Map)) return; // of a newer server
    const of = { windows: this.windowsOf, trained: this.trainedOf, troubles: this.troublesOf }[table];
    for (const [name, row] of Object.entries(rows)) {
      const whose = row ?? known.get(name);
      const site = whose && (whose.site ?? whose.whom ?? name);
      this.touched.add(site);
      if (row === null) {
        known.delete(name);
        of?.get(site)?.delete(name);
      } else {
        parsed(row);
        known.set(name, row);
        if (of && !of.has(site)) of.set(site, new Map());
        of?.get(site).set(name, row);
      }
    }
    this.dirty.add(table);
  }

  hear(event) {
    event.ms = Date.parse(event.at);
    this.events.push(event);
    if (this.events.length > 2 * KEPT_EVENTS) this.events = this.events.slice(-KEPT_EVENTS);
    this.topics.add(event.topic);
    if (event.ms > this.now()) this.clock = { ...this.clock, now: event.ms, heard: performance.now() };
    this.dirty.add("events");
  }

  tick(clock) {
    this.clock = { now: Date.parse(clock.now), speed: clock.speed, heard: performance.now() };
    this.dirty.add("clock");
  }

  // Business time: in a replay it runs faster, or stands still between events.
  now() {
    return this.clock.now + (performance.now() - this.clock.heard) * this.clock.speed;
  }
}

// Instants are read once, not each time that they are drawn.
function parsed(row) {
  if (row.opened_at) row.opens = Date.parse(row.opened_at);
  if (row.closes_at) row.closes = Date.parse(row.closes_at);
  if (typeof row.since === "string") row.from = Date.parse(row.since);
  if (row.until) row.to = Date.parse(row.until);
}

const entered = ([site, start, end, kwh, kg]) => ({ site, start: Date.parse(start), end: Date.parse(end), kwh, kg });
