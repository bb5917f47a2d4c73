// What a round is made of, as a waterfall that is a table: from its opening to its commit.

import { copy, h, keyed, one, options, say } from "./dom.js";
import { clock, count, counted, figure, size, span } from "./words.js";

const CHOICE = 200;
const PARTS = 200;

export class Rounds {
  calm = 250; // ms between two drawings
  needs = ["rounds", "parts"];

  constructor(store, again, said) {
    this.store = store;
    this.said = said;
    this.choice = one("round-choice");
    this.newest = one("round-newest");
    this.table = one("round-table");
    this.choice.addEventListener("input", () => this.hold(again));
    this.newest.addEventListener("input", () => again("rounds"));
    one("round-before").addEventListener("click", () => this.step(1, again));
    one("round-after").addEventListener("click", () => this.step(-1, again));
    const heads = ["what", "when", "to the commit", "tokens", "loss", "sent", "trace"];
    this.table.append(h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody"));
  }

  step(by, again) {
    const place = Math.max(0, Math.min(this.choice.options.length - 1, this.choice.selectedIndex + by));
    this.choice.selectedIndex = place;
    this.hold(again);
  }

  hold(again) {
    this.newest.checked = false;
    again("rounds");
  }

  draw() {
    const rounds = [...this.store.rounds.values()].slice(-CHOICE).reverse();
    const done = rounds.find((round) => round.state === "completed") ?? rounds[0];
    const stays = !this.newest.checked && rounds.some((round) => round.name === this.choice.value);
    options(this.choice, rounds.map((round) => [round.name, round.name]), stays ? this.choice.value : done?.name);
    const round = this.store.rounds.get(this.choice.value);
    this.words(round);
    keyed(this.table.tBodies[0], round ? this.lines(round) : [], (line) => line.key, () => this.make(), (row, line) => this.fill(row, line));
  }

  words(round) {
    if (!round) return say(one("round-words"), "no round has started yet");
    const lasted = round.completed_at && round.started_at ? `, ${span(Date.parse(round.completed_at) - Date.parse(round.started_at))} from opening to commit` : "";
    const told = round.tokens === undefined ? "" : `, ${counted(round.tokens, "tokens")} in ${counted(round.steps, "steps")}, up ${size(round.bytes_up)}, down ${size(round.bytes_down)}`;
    say(one("round-words"), `${round.state}${lasted}${told}${round.because ? `. ${round.because}` : ""}`);
  }

  lines(round) {
    const parts = this.store.parts.get(round.name) ?? [];
    const instants = [round.started_at, round.completed_at, round.evaluated_at, ...parts.map((part) => part.at)].filter(Boolean).map(Date.parse);
    const low = round.started_at ? Date.parse(round.started_at) : Math.min(...instants);
    const high = Math.max(...instants, round.completed_at ? 0 : this.store.now());
    const last = parts.length ? Math.max(...parts.map((part) => Date.parse(part.at))) : low;
    const bar = (since, until) => [(since - low) / (high - low || 1), (until - since) / (high - low || 1)];
    const lines = [];
    if (round.started_at) lines.push({ key: "opening", what: `opening, ${round.members} members`, at: low, kind: "open", bar: [0, 0], trace: round.state === "running" ? round.trace_id : "" });
    parts.slice(0, PARTS).forEach((part, place) => {
      const at = Date.parse(part.at);
      const flags = [part.refused ? `refused, ${part.refused}` : "", part.partial ? "it leaves" : "", part.rounds_late ? `${counted(part.rounds_late, "rounds")} late` : ""].filter(Boolean);
      lines.push({
        key: `part ${place}`, what: flags.length ? `${part.site} (${flags.join("; ")})` : part.site, at, kind: part.refused ? "refused" : "part", bar: bar(low, Math.max(low, at)),
        tokens: part.refused ? undefined : part.tokens, loss: part.loss_nats, sent: part.refused ? undefined : part.bytes_up, trace: part.trace_id,
      });
    });
    if (parts.length > PARTS) lines.push({ key: "more", what: `and ${parts.length - PARTS} more`, kind: "open", bar: [0, 0] });
    if (!parts.length && round.contributors) lines.push({ key: "none", what: `${counted(round.contributors, "contributions")}, no longer kept one by one`, kind: "open", bar: [0, 0] });
    if (round.completed_at) {
      const at = Date.parse(round.completed_at);
      lines.push({ key: "commit", what: "merge and commit", at, kind: "commit", bar: bar(Math.min(at, last), at), tokens: round.tokens, loss: round.loss_nats, sent: round.bytes_up, trace: round.trace_id });
    }
    if (round.evaluated_at) lines.push({ key: "evaluated", what: "held out", at: Date.parse(round.evaluated_at), kind: "open", bar: bar(Math.max(low, Date.parse(round.evaluated_at)), Date.parse(round.evaluated_at)), loss: round.held_out_nats });
    return lines.map((line) => ({ ...line, after: line.at === undefined ? "" : `${clock(line.at, true)}${line.at > low ? `, +${span(line.at - low)}` : ""}` }));
  }

  make() {
    const bar = h("span", { class: "bar" });
    const row = h("tr", {}, h("th", { scope: "row" }), h("td"), h("td", { class: "track" }, bar), h("td"), h("td"), h("td"), h("td"));
    row.bar = bar;
    return row;
  }

  fill(row, line) {
    const [what, at, , tokens, loss, sent, trace] = row.cells;
    say(what, line.what);
    say(at, line.after);
    row.dataset.kind = line.kind;
    row.bar.style.marginLeft = `${(100 * line.bar[0]).toFixed(2)}%`;
    row.bar.style.width = `max(3px, ${(100 * line.bar[1]).toFixed(2)}%)`;
    say(tokens, line.tokens === undefined ? "" : count(line.tokens));
    say(loss, line.loss === undefined ? "" : figure(line.loss));
    say(sent, line.sent === undefined ? "" : size(line.sent));
    if (row.trace !== line.trace) {
      row.trace = line.trace;
      trace.replaceChildren(...traceOf(line.trace, this.store, this.said));
    }
  }
}

// A trace: its id to copy, and a way to it where whoever serves the page has said where traces are.
export function traceOf(id, store, said) {
  if (!id) return [];
  const found = [h("button", { type: "button", class: "link mono", title: `copy ${id}`, "aria-label": `copy trace ${id}`, onclick: () => copy(id, said) }, id.slice(0, 8))];
  const template = store.about.trace_url;
  if (template) {
    const href = template.replace("{trace_id}", encodeURIComponent(id));
    found.push(" ", h("a", { href, target: "_blank", rel: "noopener noreferrer", "aria-label": `open trace ${id}` }, "open"));
  }
  return found;
}
