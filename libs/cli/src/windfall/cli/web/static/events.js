// What is said, the newest first, by topic and by whom it is about.

import { h, keyed, one, options, say } from "./dom.js";
import { traceOf } from "./rounds.js";
import { clock, day } from "./words.js";

const SHOWN = 100;

export class Events {
  calm = 100; // ms between two drawings
  needs = ["events", "sites"];

  constructor(store, again, said) {
    this.store = store;
    this.said = said;
    this.topic = one("events-topic");
    this.whom = one("events-whom");
    this.pause = one("events-pause");
    for (const control of [this.topic, this.whom]) control.addEventListener("input", () => again("events"));
    this.pause.addEventListener("click", () => {
      this.held = this.held ? undefined : this.store.events.at(-1) ?? {};
      this.pause.setAttribute("aria-pressed", String(Boolean(this.held)));
      say(this.pause, this.held ? "Go on" : "Pause");
      again("events");
    });
    one("events-clear").addEventListener("click", () => {
      this.topic.value = this.whom.value = "";
      again("events");
    });
  }

  draw(dirty) {
    if (this.store.topics.size !== this.topics) {
      this.topics = this.store.topics.size;
      const nouns = new Set([...this.store.topics].map((topic) => `${topic.split(".")[0]}.*`));
      const topics = [...nouns, ...this.store.topics].sort();
      options(this.topic, [["", "all"], ...topics.map((topic) => [topic, topic])], this.topic.value);
    }
    if (dirty.has("sites") || dirty.has("all")) {
      const wanted = Math.min(1000, this.store.federations.size + this.store.sites.size);
      if (wanted !== one("events-known").children.length) {
        const known = [...this.store.federations.keys(), ...this.store.sites.keys()].slice(0, wanted);
        one("events-known").replaceChildren(...known.map((value) => h("option", { value })));
      }
    }
    const { events } = this.store;
    const end = this.held ? events.lastIndexOf(this.held) + 1 || (this.held.id ? events.length : 0) : events.length;
    const seen = [];
    for (let place = end - 1; place >= 0 && seen.length < SHOWN; place -= 1) if (this.wanted(events[place])) seen.push(events[place]);
    say(one("events-count"), this.held ? `paused, ${events.length - end} more` : "");
    keyed(one("events"), seen, (event) => event.id, (event) => this.row(event));
  }

  wanted(event) {
    const topic = this.topic.value, whom = this.whom.value.trim().toLowerCase();
    return (!topic || event.topic === topic || (topic.endsWith(".*") && event.topic.startsWith(topic.slice(0, -1)))) && (!whom || event.whom.includes(whom));
  }

  row(event) {
    const trace = traceOf(event.trace, this.store, this.said);
    const when = h("time", { datetime: event.at, title: `${day(event.ms)} ${clock(event.ms, true)}` }, clock(event.ms, true));
    return h("tr", { "data-id": event.id }, h("td", {}, when), h("td", {}, event.topic), h("td", {}, event.whom), h("td", { class: "more" }, event.text), h("td", {}, ...trace));
  }
}
