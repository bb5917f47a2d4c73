// Numbers and instants as people read them; everything in UTC.

const two = (number) => String(number).padStart(2, "0");

export function clock(ms, seconds = false) {
  const at = new Date(ms);
  const text = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  return seconds ? `${text}:${two(at.getUTCSeconds())}` : text;
}

export function day(ms) {
  return new Date(ms).toISOString().slice(0, 10);
}

export const instant = (ms) => `${day(ms)} ${clock(ms, true)}`;

export function span(ms) {
  const seconds = ms / 1000;
  if (seconds < 1) return `${Math.round(ms)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(seconds < 600 ? 1 : 0)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function size(bytes) {
  if (bytes === undefined) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000 || unit === "GB") return `${bytes < 100 && unit !== "B" ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
    bytes /= 1000;
  }
}

export function count(number) {
  return number === undefined ? "–" : Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");
}

export const counted = (number, what) => `${count(number)} ${number === 1 ? what.replace(/s$/, "") : what}`;

export function figure(number, places = 3) {
  if (number === undefined) return "–";
  return Math.abs(number) >= 10000 ? count(number) : Number(number.toPrecision(places)).toString();
}

// Round values between low and high, about as many as asked for.
export function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(value);
  return found;
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 14400].map((minutes) => minutes * 60000);

export function timeTicks(low, high, wanted) {
  const step = STEPS.find((one) => (high - low) / one <= wanted) ?? STEPS.at(-1);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
  return found.map((at) => [at, at % 86400000 === 0 ? day(at).slice(5) : clock(at)]);
}
