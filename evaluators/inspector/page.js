"use strict";
// Draws the tokens of each trajectory, and shows the numbers of the token under the pointer. Text is only ever set as text.
(() => {
  const TAIL = 6; // the last tokens of a folded prefix, which are still shown
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const none = "–";
  const blocks = data.trajectories.map((trajectory, number) => ({
    ...trajectory,
    number,
    length: trajectory.columns.token.length,
    box: document.querySelector(`#t${number} .tokens`),
    spans: new Map(), // position -> its element, if it is drawn
    forks: new Map(), // position -> the trajectories that part from it there
  }));
  for (const block of blocks) {
    const from = blocks[block.partsFrom];
    if (from && block.shared < block.length) {
      from.forks.set(block.shared, [...(from.forks.get(block.shared) || []), block]);
    }
  }

  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // Texts

  const textOf = (name) => data.names[name][1];
  const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");

  function inline(text) {
    return /^\s+$/.test(text) ? visible(text) : text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  }

  function quoted(name) {
    return element("span", "text", name === null ? none : `“${visible(textOf(name))}”`);
  }

  function number(value) {
    return value === null ? none : String(Number(value.toPrecision(4)));
  }

  const probability = (logp) => number(logp === null ? null : Math.exp(logp));

  // Tokens

  function token(block, position) {
    const state = block.columns.state[position];
    const shade = block.columns.shade[position];
    const span = element("span", "t", inline(textOf(block.columns.token[position])));
    if (state > 0) span.classList.add("intervened");
    if (state > 1) span.classList.add("effective");
    if (shade !== null) span.style.backgroundColor = data.palette[shade];
    span.dataset.position = position;
    span.tabIndex = -1;
    block.spans.set(position, span);
    return span;
  }

  function draw(block, start, stop, withBreaks) {
    const tokens = document.createDocumentFragment();
    for (let position = start; position < stop; position++) {
      if (block.forks.has(position)) tokens.append(element("span", "fork", "▾"));
      tokens.append(token(block, position));
      const breaks = textOf(block.columns.token[position]).split("\n").length - 1;
      if (withBreaks && breaks) tokens.append("\n".repeat(breaks));
    }
    return tokens;
  }

  function foldButton(block, folded, hidden) {
    const count = `${hidden.toLocaleString("en")} shared`;
    const button = element("button", "fold", folded ? `⋯ ${count}` : `fold ${count}`);
    button.type = "button";
    button.setAttribute("aria-expanded", String(!folded));
    button.addEventListener("click", () => { fill(block, !folded); block.box.querySelector(".fold").focus(); });
    return button;
  }

  // The shared tokens stand before the rest. Folded, they have a column of their own, so that the rests are aligned.
  function fill(block, folded) {
    const { shared, length } = block;
    const ends = shared === length;
    const hidden = ends ? shared : Math.max(0, shared - TAIL);
    const prefix = element("div", block.folds ? "shared" : "");
    const rest = element("div");
    block.spans.clear();
    if (block.folds && hidden) prefix.append(foldButton(block, folded, hidden), folded ? " " : "\n");
    prefix.append(draw(block, folded ? hidden : 0, shared, !folded));
    if (shared && !ends) rest.append(element("span", "mark", "▶"));
    rest.append(draw(block, shared, length, true));
    block.box.classList.toggle("aligned", folded && shared > 0 && !ends);
    block.box.replaceChildren(...(shared ? [prefix] : []), ...(ends ? [] : [rest]));
    const first = block.spans.get(ends ? 0 : shared);
    if (first) first.tabIndex = 0;
  }

  function show(block, position) {
    if (!block.spans.has(position)) fill(block, false);
    const span = block.spans.get(position);
    if (!span) return;
    span.scrollIntoView({ block: "center" });
    span.focus({ preventScroll: true });
  }

  // Numbers

  function describe(block, at) {
    const column = (name) => block.columns[name][at];
    const [id] = data.names[column("token")];
    const head = element("p", "", `position ${at.toLocaleString("en")} `);
    head.append(quoted(column("token")), id === null ? "" : ` #${id}`);
    const js = column("js");
    const measured = element("p", "js", js === null ? "divergence not measured: only one policy saw this position" : `JS ${number(js)} nats`);
    return [head, measured, ...intervention(block, column), table(column), ...lists(block, at), ...forks(block, at)];
  }

  function intervention(block, column) {
    if (!column("state")) return [];
    const line = element("p");
    const [primary, other] = block.primary === "rl" ? ["rl", "base"] : ["base", "rl"];
    line.append(element("strong", "", column("state") > 1 ? "effective intervention" : "intervention, not effective"), ` of ${other}: `);
    if (column("primary_token") === null) line.append(`the token that ${primary} would have sampled was not recorded`);
    else line.append(`${primary} would have sampled `, quoted(column("primary_token")));
    return [line];
  }

  function table(column) {
    const numbers = element("table");
    const rank = (value) => (value === null ? "" : ` (rank ${value.toLocaleString("en")})`);
    const both = (stem, form) => ["base", "rl"].map((policy) => form(column(`${stem}_${policy}`)));
    const ranks = both("rank", rank);
    const rows = [
      ["probability", ...both("logp", probability).map((p, place) => p + ranks[place])],
      ["entropy, nats", ...both("entropy", number)],
      ["nucleus, tokens", ...both("nucleus", (size) => (size === null ? none : size.toLocaleString("en")))],
      [["top-1 of base ", quoted(column("top1_base"))], probability(column("logp_base_of_own_top1")),
        probability(column("logp_rl_of_top1_base")) + rank(column("rank_rl_of_top1_base"))],
      [["top-1 of rl ", quoted(column("top1_rl"))], probability(column("logp_base_of_top1_rl")) + rank(column("rank_base_of_top1_rl")),
        probability(column("logp_rl_of_own_top1"))],
    ];
    const head = element("thead");
    head.append(row(["", "base", "rl"], "th"));
    const body = element("tbody");
    body.append(...rows.map((cells) => row(cells, "td")));
    numbers.append(head, body);
    return numbers;
  }

  function row(cells, tag) {
    const line = element("tr");
    cells.forEach((cell, place) => {
      const box = element(place ? tag : "th");
      box.append(...[cell].flat());
      line.append(box);
    });
    return line;
  }

  function lists(block, at) {
    const recorded = block.lists[at];
    if (!recorded) return [];
    const list = element("div", "lists");
    list.append(element("p", "quiet", "most probable tokens, best first"));
    ["base", "rl"].forEach((policy, place) => {
      const line = element("div", `topk-${policy}`);
      const texts = element("span");
      for (const name of recorded[place]) texts.append(quoted(name), " ");
      line.append(element("span", "quiet", policy), texts);
      list.append(line);
    });
    return [list];
  }

  function forks(block, at) {
    const parting = block.forks.get(at);
    return parting ? [element("p", "mark", `▾ here part: ${parting.map((other) => other.label).join("; ")}`)] : [];
  }

  // The pointer and the keyboard

  const blockOf = (span) => blocks[Number(span.closest(".trajectory").id.slice(1))];

  function open(span) {
    tip.replaceChildren(...describe(blockOf(span), Number(span.dataset.position)));
    tip.hidden = false;
    const at = span.getClientRects()[0];
    const size = tip.getBoundingClientRect();
    const below = at.bottom + 8 + size.height <= innerHeight || at.top < size.height + 8;
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - size.width - 8));
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(below ? at.bottom + 8 : at.top - size.height - 8) + scrollY}px`;
  }

  function close() {
    const focused = document.activeElement;
    if (focused && focused.matches(".tokens .t")) open(focused);
    else tip.hidden = true;
  }

  const tokenAt = (event) => event.target.closest && event.target.closest(".tokens .t");

  // The position to which a key moves from this one; null for any other key.
  function target(block, position, key) {
    const last = block.length - 1;
    if (key === "ArrowRight") return position + 1;
    if (key === "ArrowLeft") return position - 1;
    if (key === "Home") return Math.min(...block.spans.keys());
    if (key === "End") return last;
    const step = { n: 1, p: -1 }[key];
    if (!step) return null;
    let next = position + step;
    while (next >= 0 && next <= last && !(block.columns.state[next] && block.spans.has(next))) next += step;
    return next;
  }

  // Scrolling moves tokens under a resting pointer, which is not pointing.
  let pointer = "";
  function hasMoved(event) {
    const before = pointer;
    pointer = `${event.clientX} ${event.clientY}`;
    return pointer !== before;
  }

  document.addEventListener("mousemove", hasMoved);
  document.addEventListener("mouseover", (event) => {
    const span = tokenAt(event);
    if (hasMoved(event) && span) open(span);
  });
  document.addEventListener("mouseout", (event) => { if (tokenAt(event)) close(); });
  document.addEventListener("focusin", (event) => {
    const span = tokenAt(event);
    if (!span) return;
    const block = blockOf(span);
    for (const other of block.box.querySelectorAll('.t[tabindex="0"]')) other.tabIndex = -1;
    span.tabIndex = 0;
    span.setAttribute("aria-describedby", "tip");
    open(span);
  });
  document.addEventListener("focusout", (event) => { if (tokenAt(event)) tip.hidden = true; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tip.hidden = true;
    const span = tokenAt(event);
    if (!span || event.ctrlKey || event.metaKey || event.altKey) return;
    const block = blockOf(span);
    const position = target(block, Number(span.dataset.position), event.key);
    if (position === null) return;
    event.preventDefault();
    const next = block.spans.get(position);
    if (next) next.focus();
  });
  for (const button of document.querySelectorAll(".goto")) {
    button.addEventListener("click", () => {
      const block = blocks[Number(button.dataset.block)];
      show(block, Math.min(Number(button.dataset.position), block.length - 1));
    });
  }

  for (const step of document.querySelectorAll("[data-shade]")) step.style.backgroundColor = data.palette[Number(step.dataset.shade)];
  for (const block of blocks) fill(block, block.folds);
})();
