"use strict";
// What stands in the page as JSON, read when it is first asked for.
const read = (cache => id => cache[id] ??= JSON.parse(document.getElementById(id).textContent))({});
const setting = read("setting");

// A packed table as rows; a column of words has its different words and each row's place in them.
const rowsOf = (cache => name => cache[name] ??= unpack(read(`data-${name}`)))({});
function unpack({n, columns}) {
  const rows = Array.from({length: n}, () => ({}));
  for (const [name, values] of Object.entries(columns)) {
    const words = values.words;
    for (let i = 0; i < n; i++) rows[i][name] = words ? words[values.codes[i]] ?? null : values[i];
  }
  return rows;
}

// Rows by the values of some columns, found again without a search through all.
const indexes = {};
function find(name, wanted) {
  const keys = Object.keys(wanted), id = name + "\0" + keys;
  if (!indexes[id]) {
    indexes[id] = new Map();
    for (const row of rowsOf(name)) {
      const key = JSON.stringify(keys.map(each => row[each]));
      indexes[id].get(key)?.push(row) ?? indexes[id].set(key, [row]);
    }
  }
  return indexes[id].get(JSON.stringify(Object.values(wanted))) ?? [];
}

// What a reader sees of a value; unknown ones are a dash.
const minus = text => text.replaceAll("-", "−");
const known = value => value !== null && value !== undefined && value !== "";
const show = {
  text: value => String(value),
  outcome: value => setting.outcomes[value] ?? value,
  percent: value => `${(100 * value).toFixed(1)}%`,
  points: value => minus(`${value <= -5e-4 ? "" : "+"}${(100 * value).toFixed(1).replace(/^-0\.0$/, "0.0")}`),
  number: value => minus(value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2)
    : Math.abs(value) < 100 ? value.toPrecision(3) : String(Number(value.toPrecision(3)))),
  plain: value => minus(Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)))),
};
const shown = (value, kind = "number") => known(value) ? show[kind](value) : "–";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
