// The fleet in a line of figures.

import { h, keyed, one, say } from "./dom.js";
import { count, figure } from "./words.js";

export class Figures {
  calm = 250; // ms between two drawings
  needs = ["sites", "rounds", "federations", "totals"];

  constructor(store) {
    this.store = store;
  }

  draw() {
    const { sites, rounds, federations, totals } = this.store;
    let on = 0, training = 0, kwh = 0, clean = 0, kg = 0, tokens = 0, heldOut, done = 0;
    for (const site of sites.values()) {
      on += site.window === "on";
      training += site.training === "training" && site.node === "ready";
    }
    for (const one of totals.values()) {
      kwh += one.energy_kwh;
      clean += one.clean_energy_kwh;
      kg += one.emissions_kg;
    }
    for (const one of federations.values()) tokens += one.tokens_total ?? 0;
    for (const one of rounds.values()) {
      done += one.state === "completed";
      heldOut = one.held_out_nats ?? heldOut;
    }
    const told = [
      ["sites", count(sites.size)],
      ["with surplus power", count(on)],
      ["training", count(training)],
      ["rounds", count(done)],
      ["tokens", count(tokens)],
      ["held-out loss", figure(heldOut)],
      ["energy", `${figure(kwh)} kWh`],
      ["clean", kwh > 0 ? `${Math.round((100 * clean) / kwh)} %` : "–"],
      ["carbon", kg > 0 && kg < 1 ? `${figure(kg * 1000)} g` : `${figure(kg)} kg`],
    ];
    keyed(
      one("figures"),
      told,
      ([name]) => name,
      ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
      (element, [, value]) => say(element.lastChild, value),
    );
  }
}
