// What is wrong now, the newest first.

import { h, keyed, one, say } from "./dom.js";
import { clock } from "./words.js";

const SHOWN = 100;

export class Wrong {
  needs = ["troubles"];

  constructor(store, open) {
    this.store = store;
    this.open = open;
  }

  draw() {
    const all = [...this.store.troubles.values()].sort((a, b) => (b.since ?? "~").localeCompare(a.since ?? "~"));
    say(one("wrong-count"), all.length ? String(all.length) : "nothing that is known");
    one("wrong").parentElement.classList.toggle("fine", all.length === 0);
    keyed(
      one("wrong"),
      all.slice(0, SHOWN),
      (trouble) => trouble.name,
      (trouble) => h("li", {}, h("span", { class: "kind" }, trouble.kind), this.whom(trouble), h("span", { class: "since" }), h("span", {})),
      (element, trouble) => {
        say(element.children[2], trouble.since ? clock(Date.parse(trouble.since)) : "");
        say(element.children[3], trouble.text);
      },
    );
  }

  whom(trouble) {
    if (!this.store.sites.has(trouble.whom)) return h("span", { class: "whom" }, trouble.whom);
    return h("button", { type: "button", class: "link whom", onclick: () => this.open(trouble.whom) }, trouble.whom);
  }
}
