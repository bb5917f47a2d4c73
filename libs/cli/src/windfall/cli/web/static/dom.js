// Elements are made here and nowhere else: what comes from events becomes text, never markup.

export const one = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map(asNode));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map(asNode));
  return element;
}

const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

// Only what is different is written, so that nothing is laid out, read aloud or deselected for nothing.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Children by key: those that stay are kept, with their focus and selection.
export function keyed(parent, items, keyOf, make, update) {
  const kept = parent.keyedChildren ?? new Map();
  const next = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (next.has(key)) continue;
    const child = kept.get(key) ?? make(item);
    update?.(child, item);
    next.set(key, child);
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  for (const [key, child] of kept) if (!next.has(key)) child.remove();
  parent.keyedChildren = next;
}

export function options(select, values, chosen) {
  const known = [...select.options].map((option) => option.value);
  if (known.length !== values.length || values.some(([value], place) => known[place] !== value)) {
    select.replaceChildren(...values.map(([value, text]) => h("option", { value }, text)));
  }
  if (chosen !== undefined && select.value !== chosen) select.value = chosen;
}

export async function copy(text, said) {
  try {
    await navigator.clipboard.writeText(text);
    said(`copied ${text}`);
  } catch {
    said(`the browser does not allow to copy; it is ${text}`);
  }
}
