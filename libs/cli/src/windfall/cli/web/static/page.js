// Where everything meets: the stream fills the store, and each view is drawn at most once per frame.

import { connect } from "./connection.js";
import { one, say } from "./dom.js";
import { Events } from "./events.js";
import { Figures } from "./figures.js";
import { Lanes } from "./lanes.js";
import { Loss } from "./loss.js";
import { Rounds } from "./rounds.js";
import { SiteDialog } from "./site.js";
import { Store } from "./store.js";
import { theme } from "./theme.js";
import { day, clock } from "./words.js";
import { Wrong } from "./wrong.js";

const store = new Store();
const said = (text) => say(one("said"), text);
const LATE_MS = 100;
const late = new Set();
let scheduled = false, waiting;

function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const dirty = new Set(store.dirty), at = performance.now();
    store.dirty.clear();
    for (const view of views) {
      if (!dirty.has("all") && !view.needs.some((name) => dirty.has(name))) continue;
      if (view.calm && at - (view.drawn ?? 0) < view.calm && !dirty.has("all")) {
        // Sums and charts need not move with each frame; what they lack is still lacking then.
        for (const name of view.needs) if (dirty.has(name)) late.add(name);
        continue;
      }
      view.drawn = at;
      view.draw(dirty);
    }
    if (late.size && !waiting) waiting = setTimeout(() => {
      waiting = undefined;
      const names = [...late];
      late.clear();
      again(...names);
    }, LATE_MS);
    const now = store.now();
    say(one("clock"), `${day(now)} ${clock(now, store.clock.speed <= 1)} UTC`);
  });
}

const again = (...names) => {
  for (const name of names) store.dirty.add(name);
  draw();
};
const site = new SiteDialog(store);
const views = [
  new Figures(store),
  new Wrong(store, (name) => site.open(name)),
  new Lanes(store, again, (name) => site.open(name)),
  new Loss(store, again),
  new Rounds(store, again, said),
  new Events(store, again, said),
  site,
];

const STATES = {
  live: "live",
  lost: "the server does not answer; trying again",
  ended: "ended: what you see is how it ended",
};
theme(() => again("all"));
connect({
  // Everything is drawn with the first word: a view that was drawn empty a moment ago would otherwise wait out its calm.
  snapshot: (told) => (store.snapshot(told), again("all")),
  changes: (told) => (told.forEach((change) => store.change(change)), draw()),
  clock: (told) => (store.tick(told), draw()),
  state: (state) => {
    document.documentElement.dataset.state = state;
    say(one("status-text"), STATES[state]);
    if (state === "ended") store.clock = { ...store.clock, now: store.now(), speed: 0 };
  },
});
const move = () => {
  if (!document.hidden && store.clock.speed > 0) again("clock");
  setTimeout(move, store.clock.speed > 1 ? 250 : 1000);
};
move();
