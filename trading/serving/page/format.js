// Figures, times and symbols as people read them. What is not known is a dash.

export const UNKNOWN = "–";
const NEW_YORK = "America/New_York";
const known = (value) => typeof value === "number" && Number.isFinite(value);

const formats = new Map();
function formatted(value, options) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat("en-US", options));
  // A minus sign, not a hyphen.
  return formats.get(key).format(value).replace("-", "−");
}

export const number = (value, digits = 0) =>
  known(value)
    ? formatted(value, { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : UNKNOWN;

export const signed = (value, digits = 2) => {
  if (!known(value)) return UNKNOWN;
  const rounded = Number(value.toFixed(digits));
  return `${rounded > 0 ? "+" : ""}${number(rounded === 0 ? 0 : rounded, digits)}`;
};

export const usd = (value, digits = 2) => (known(value) ? `$${number(value, digits)}` : UNKNOWN).replace("$−", "−$");
export const signedUsd = (value) => {
  if (!known(value)) return UNKNOWN;
  const cents = Math.round(value * 100) / 100;
  return cents > 0 ? `+$${number(cents, 2)}` : usd(cents === 0 ? 0 : cents, 2);
};
export const percent = (value, digits = 2) => (known(value) ? `${number(value, digits)} %` : UNKNOWN);
export const chance = (value) => (known(value) ? `${number(100 * value, value < 0.1 ? 1 : 0)} %` : UNKNOWN);

/** Compact, for axes. */
export const short = (value) =>
  known(value) ? formatted(value, { notation: "compact", maximumFractionDigits: 2 }) : UNKNOWN;

/** "up", "down" or "": the class of a gain or loss, which its sign says as well. */
export const trend = (value) => (!known(value) || Math.abs(value) < 0.005 ? "" : value > 0 ? "up" : "down");

const clocks = {
  time: { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
  minute: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  date: { day: "2-digit", month: "short", year: "numeric" },
};
const dates = new Map();
function dated(ms, kind) {
  if (!dates.has(kind)) {
    dates.set(kind, new Intl.DateTimeFormat("en-GB", { ...clocks[kind], timeZone: NEW_YORK }));
  }
  return dates.get(kind).format(new Date(ms));
}

/** Times are the exchange's: New York. `t` is in UTC seconds. */
export const clock = (t) => (known(t) ? dated(t * 1000, "time") : UNKNOWN);
export const minute = (t) => (known(t) ? dated(t * 1000, "minute") : UNKNOWN);
export const day = (t) => (known(t) ? dated(t * 1000, "date") : UNKNOWN);
export const moment = (t) => (known(t) ? `${day(t)}, ${clock(t)}` : UNKNOWN);
export const seconds = (iso) => (iso ? Date.parse(iso) / 1000 : NaN);

/** UTC as ISO 8601 of a `datetime-local` input that is meant in New York time; "" for none. */
export function fromNewYork(text) {
  if (!text) return "";
  const asUtc = Date.parse(`${text}Z`);
  const seen = new Date(asUtc).toLocaleString("sv-SE", { timeZone: NEW_YORK }).replace(" ", "T");
  return new Date(asUtc + (asUtc - Date.parse(`${seen}Z`))).toISOString();
}

export function age(secondsAgo) {
  if (!known(secondsAgo)) return UNKNOWN;
  const s = Math.max(0, Math.round(secondsAgo));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} days`;
}

/** `O:SPY260116C00650000` taken apart; null for what is no option. */
export function option(symbol) {
  const found = /^O:([A-Z0-9.]+?)(\d{2})(\d{2})(\d{2})([CP])(\d{8})$/.exec(symbol);
  if (!found) return null;
  const [, root, yy, mm, dd, right, strike] = found;
  return { root, expiry: `20${yy}-${mm}-${dd}`, right, strike: Number(strike) / 1000 };
}

export function symbolName(symbol) {
  const parts = option(symbol);
  if (!parts) return `${symbol} stock`;
  const at = new Date(`${parts.expiry}T00:00:00Z`);
  const date = at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "2-digit", timeZone: "UTC" });
  return `${parts.root} ${date} ${number(parts.strike, parts.strike % 1 ? 2 : 0)} ${parts.right === "C" ? "call" : "put"}`;
}

/** Days from exchange time `t` to a time in UTC seconds. */
export const daysTo = (end, t) => (known(t) && known(end) ? Math.max(0, (end - t) / 86_400) : NaN);

export const words = (name) => String(name ?? "").replaceAll("_", " ").replaceAll("/", " · ");
