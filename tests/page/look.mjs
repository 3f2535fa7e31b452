// What is measured within the page. Each function runs there, so it uses nothing from outside of itself.

/** Text and lines of charts that do not stand out from what is behind them as WCAG's AA asks. */
export function contrasts() {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (front, back) => ({ r: front.r * front.a + back.r * (1 - front.a), g: front.g * front.a + back.g * (1 - front.a), b: front.b * front.a + back.b * (1 - front.a), a: 1 });
  const luminance = ({ r, g, b }) => {
    const [R, G, B] = [r, g, b].map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const ground = (element) => {
    if (element === null) return { r: 255, g: 255, b: 255, a: 1 };
    const own = parse(getComputedStyle(element).backgroundColor);
    return own.a === 1 ? own : over(own, ground(element.parentElement));
  };
  const ratio = (front, back) => {
    const [high, low] = [luminance(over(front, back)), luminance(back)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const faults = new Set();
  const expect = (least, front, element, what) => {
    const found = ratio(parse(front), ground(element));
    if (found < least) faults.add(`${what}: ${found.toFixed(2)}, below ${least}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || element.closest('.hidden, noscript')) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    expect(isLarge ? 3 : 4.5, element instanceof SVGElement ? style.fill : style.color, element, `'${node.data.trim().slice(0, 40)}'`);
  }
  for (const input of document.querySelectorAll('input[placeholder]')) expect(4.5, getComputedStyle(input, '::placeholder').color, input, 'placeholder');
  for (const line of document.querySelectorAll('.edge, .line, .base')) if (line.checkVisibility()) expect(3, getComputedStyle(line).stroke, line, `line ${line.getAttribute('class')}`);
  for (const dot of document.querySelectorAll('.dot')) if (dot.checkVisibility()) expect(3, getComputedStyle(dot).backgroundColor, dot.parentElement, dot.className);
  return [...faults];
}

/** Elements that reach out of the window to the right, or text that its box cuts off. */
export function overflowing() {
  const width = document.documentElement.clientWidth;
  const faults = document.documentElement.scrollWidth > width ? [`the page, ${document.documentElement.scrollWidth} px`] : [];
  for (const element of document.querySelectorAll('body *:not(.hidden, .hidden *)')) {
    const { right, width: own } = element.getBoundingClientRect();
    if (own > 0 && right > width + 1) faults.push(`${element.tagName} ${element.id || element.getAttribute('class') || element.textContent.slice(0, 30)}, to ${Math.round(right)} px`);
    const panel = element.closest('.panel');
    if (panel && own > 0 && right > panel.getBoundingClientRect().right - 8) {
      if (element !== panel) faults.push(`${element.tagName} '${element.textContent.slice(0, 30)}' leaves its panel`);
    }
  }
  return faults.slice(0, 5);
}

/** What a screen reader could not name: controls, pictures, tables, sections. */
export function unnamed() {
  const faults = [];
  const expect = (selector, isNamed) => {
    for (const element of document.querySelectorAll(selector)) if (element.checkVisibility() && !isNamed(element)) faults.push(element.outerHTML.slice(0, 120));
  };
  const text = (element) => element?.textContent.trim();
  expect('button', (button) => text(button) || button.title.trim());
  expect('input, select', (control) => control.getAttribute('aria-label') || text(control.labels[0]));
  expect('svg:not([aria-hidden])', (svg) => svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label'));
  expect('table', (table) => text(table.caption) && [...table.querySelectorAll('th')].every((th) => th.scope));
  expect('section', (section) => section.getAttribute('aria-label') || text(document.getElementById(section.getAttribute('aria-labelledby'))));
  let level = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
    if (!heading.checkVisibility()) continue;
    const own = Number(heading.tagName[1]);
    if (own > level + 1) faults.push(`${heading.tagName} after h${level}: ${text(heading)}`);
    level = own;
  }
  return faults;
}

/** Marks what the Tab key must come to, and returns the marks in order. Of radio buttons it is the one that is chosen. */
export function focusables() {
  const all = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')];
  const reachable = all.filter((element) => element.checkVisibility() && !(element.type === 'radio' && !element.checked));
  if (all.some((element) => element.tabIndex > 0)) throw new Error('a tabindex above 0 changes the order');
  return reachable.map((element, index) => {
    element.mark = `${index}: ${element.tagName} ${element.textContent.trim().slice(0, 20)}`;
    return element.mark;
  });
}
