// One site in full.

import { h, keyed, one, say } from "./dom.js";
import { trains } from "./lanes.js";
import { counted, figure, instant, size } from "./words.js";

const WINDOWS = 50;

export class SiteDialog {
  needs = ["sites", "windows", "links", "totals", "profiles", "troubles"];

  constructor(store) {
    this.store = store;
    this.dialog = one("site");
    const heads = ["state", "opens", "closes", "gCO2/kWh", "why"];
    one("site-windows").append(h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody"));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  open(name) {
    this.name = name;
    say(one("site-title"), name);
    if (!this.dialog.open) this.dialog.showModal();
    this.draw();
  }

  draw() {
    if (!this.dialog.open) return;
    const site = this.store.sites.get(this.name) ?? { name: this.name };
    keyed(one("site-facts"), this.facts(site), ([what]) => what, ([what]) => h("div", {}, h("dt", {}, what), h("dd")), (element, [, text]) => say(element.lastChild, text));
    const windows = [...(this.store.windowsOf.get(this.name)?.values() ?? [])].slice(-WINDOWS).reverse();
    keyed(one("site-windows").tBodies[0], windows, (window) => window.name, () => h("tr", {}, ...Array.from({ length: 5 }, () => h("td"))), (row, window) => {
      const expected = window.state !== "closed" && window.state !== "withdrawn" ? "expected " : "";
      const cells = [
        window.state,
        window.opened_at ? instant(Date.parse(window.opened_at)) : "–",
        window.closes_at ? expected + instant(Date.parse(window.closes_at)) : "no end is seen",
        figure(window.intensity_g_per_kwh),
        [window.reason, window.because].filter(Boolean).join(": "),
      ];
      cells.forEach((text, place) => say(row.cells[place], text));
    });
  }

  facts(site) {
    const { links, totals, profiles, troublesOf } = this.store;
    const profile = profiles.get(this.name), sum = totals.get(this.name);
    const facts = [
      ["power", `${site.window ?? "unknown"}${site.since ? ` since ${instant(Date.parse(site.since))}` : ""}`],
      ["because", site.because || "–"],
      ["trains", trains(site)],
      ["node", [site.node, site.node_name, site.lease_token === undefined ? "" : `lease ${site.lease_token}`].filter(Boolean).join(", ") || "–"],
      ["made of", profile ? [profile.device, profile.matmul_gflops === undefined ? "" : `${figure(profile.matmul_gflops)} Gflop/s`, `${figure(profile.memory_gib)} GiB`, `micro-batch ${profile.micro_batch}`].filter(Boolean).join(", ") : "not profiled yet"],
    ];
    for (const link of links.values()) {
      if (link.site !== this.name) continue;
      const bad = link.degraded?.length ? `; degraded: ${link.degraded.join(", ")}` : "";
      facts.push([`link to ${link.target}`, `${figure(link.rtt_ms)} ms, up ${figure(link.up_mb_per_s)} MB/s, down ${figure(link.down_mb_per_s)} MB/s${bad}`]);
    }
    if (sum) {
      facts.push(["trained", `${counted(sum.tokens, "tokens")} in ${counted(sum.contributions, "contributions")}, ${size(sum.bytes_up)} sent`]);
      facts.push(["drawn", `${figure(sum.energy_kwh)} kWh, ${figure(sum.clean_energy_kwh)} of it clean; ${figure(sum.emissions_kg * 1000)} g of CO2`]);
    }
    for (const trouble of troublesOf.get(this.name)?.values() ?? []) facts.push([`wrong: ${trouble.kind}`, trouble.text]);
    return facts;
  }
}
