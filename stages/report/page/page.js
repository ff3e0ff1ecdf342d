"use strict";
// Data come as scripts that call report.take: a page opened from a disk may
// load those, but no JSON. Names are only ever set as text.
const report = (() => {
  const config = JSON.parse(document.getElementById("config").textContent);
  const at = id => document.getElementById(id);
  const heads = new Map(); // by number, once loaded
  const step = 24; // clusters shown at a time
  const whole = new Intl.NumberFormat("en");
  const share = n => (n / 1000).toFixed(3);
  let shown = step;

  const orders = [
    ...(config.truth ? [["purest first", (a, b) => b.pure - a.pure], ["least pure first", (a, b) => a.pure - b.pure]] : []),
    ["surest first", (a, b) => b.sure - a.sure], ["least sure first", (a, b) => a.sure - b.sure],
    ["largest first", (a, b) => b.size - a.size], ["smallest first", (a, b) => a.size - b.size],
    ...(config.previous ? [["most changed first", (a, b) => b.changed - a.changed], ["least changed first", (a, b) => a.changed - b.changed]] : []),
    ["by number", () => 0],
  ];
  orders.forEach(([name], i) => at("order").add(new Option(name, i)));

  function element(name, attributes, ...children) {
    const e = Object.assign(document.createElement(name), attributes);
    e.append(...children);
    return e;
  }

  // take receives a head's data.
  function take(data) {
    const clusters = data.size.map((size, number) => ({
      number, size, sure: data.sure[number], pure: data.pure ? data.pure[number] : -1,
      name: data.class && data.class[number] >= 0 ? data.classes[data.class[number]] : "",
      changed: data.changed ? data.changed[number] : 0, images: [],
    }));
    let next = 0;
    data.order.forEach((number, place) => {
      const c = clusters[number];
      c.rank = place;
      for (let i = 0; i < data.count[place]; i++, next++) {
        c.images.push({
          index: next, name: data.folders[data.folder[next]] + data.name[next], prob: data.prob[next], missing: data.missing && data.missing[next],
          of: data.of && data.of[next] >= 0 ? data.classes[data.of[next]] : "",
        });
      }
      c.text = c.images.map(i => i.name).join("\n").toLowerCase();
    });
    heads.set(data.head, clusters);
    if (data.head === chosen()) show();
  }

  const chosen = () => Number(at("head").value);

  function load(head) {
    if (heads.has(head)) return show();
    at("found").textContent = "Loading…";
    at("cards").replaceChildren();
    at("more").hidden = true;
    const script = element("script", { src: config.heads[head].data });
    script.onerror = () => { at("found").textContent = `${config.heads[head].data} cannot be loaded: the folder “data” must lie beside this page.`; };
    document.head.append(script);
  }

  // tile draws an image: a window on the file that has many side by side.
  function tile(head, image) {
    const box = element("span", { className: "tile", title: image.name });
    if (image.missing) {
      box.classList.add("missing");
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", `${image.name}: not shown, ${image.missing}`);
      box.title = `${image.name}: ${image.missing}`;
      return box;
    }
    const file = Math.floor(image.index / config.perFile), place = image.index % config.perFile;
    const img = element("img", { alt: image.name, loading: "lazy", decoding: "async" });
    // Half a pixel on each side stays out of sight: scaling mixes it with the neighbours.
    const seen = config.side - 1, offset = n => `${-100 * (n * config.side + .5) / seen}%`;
    img.style.width = `${100 * config.perRow * config.side / seen}%`;
    img.style.left = offset(place % config.perRow);
    img.style.top = offset(Math.floor(place / config.perRow));
    img.style.aspectRatio = `${config.perRow} / ${config.heads[head].rows[file]}`;
    img.onerror = () => { img.remove(); box.classList.add("missing"); };
    img.src = config.heads[head].tiles[file];
    box.append(img);
    return box;
  }

  const facts = c => [
    `confidence ${(c.sure / 1000).toFixed(2)}`,
    ...(c.pure >= 0 ? [`purity ${(c.pure / 1000).toFixed(2)}`] : []),
    ...(config.previous && c.size ? [`changed ${(c.changed / 1000).toFixed(2)}`] : []),
  ];
  const images = n => `${whole.format(n)} ${n === 1 ? "image" : "images"}`;

  function card(head, c) {
    const open = element("button", { type: "button", textContent: c.number });
    open.setAttribute("aria-label", `Cluster ${c.number}${c.name ? ", mostly " + c.name : ""}: names of its images`);
    open.onclick = () => look(head, c);
    const title = element("h3", {}, open);
    if (c.name) title.append(element("bdi", { textContent: c.name, title: c.name }));
    title.append(element("span", { className: "size", textContent: images(c.size) }));
    const tiles = element("div", { className: "tiles" }, ...c.images.map(i => tile(head, i)));
    return element("li", { className: "card" }, title, tiles, element("p", { className: "facts" }, ...facts(c).map(f => element("span", { textContent: f }))));
  }

  // look opens a cluster, with the names of its images.
  function look(head, c) {
    at("look-name").textContent = `Cluster ${c.number}${c.name ? " · " + c.name : ""}`;
    at("look-facts").textContent = [`head ${head}`, images(c.size), ...facts(c)].join(" · ");
    at("look-images").replaceChildren(...c.images.map(i => element("li", {},
      tile(head, i), element("bdi", { className: "name", textContent: i.name }),
      element("span", { className: "of", textContent: [share(i.prob), i.of, i.missing].filter(Boolean).join(" · ") }))));
    at("look").showModal();
  }
  at("look-close").onclick = () => at("look").close();
  at("look").onclick = e => { if (e.target === at("look")) at("look").close(); };

  // matches tells whether a cluster is what is looked for. A number that is a
  // cluster's, or a class, is not sought in the images' names.
  function matcher(clusters, query) {
    if (!query) return () => true;
    const exact = c => String(c.number) === query || c.name.toLowerCase() === query;
    if (/^\d+$/.test(query) && clusters.some(exact)) return exact;
    return c => exact(c) || c.name.toLowerCase().includes(query) || c.text.includes(query);
  }

  function show() {
    const head = chosen(), clusters = heads.get(head), query = at("find").value.trim().toLowerCase();
    const order = orders[at("order").value][1];
    const list = clusters.filter(matcher(clusters, query)).sort((a, b) => order(a, b) || a.number - b.number);
    const now = list.slice(0, shown);
    at("cards").replaceChildren(...now.map(c => card(head, c)));
    const all = query ? `${whole.format(list.length)} of ${whole.format(clusters.length)} clusters match` : `${whole.format(clusters.length)} clusters`;
    at("found").textContent = all + (list.length > now.length ? `; the first ${now.length} are shown` : "") + (query ? ". Names are those of the images shown." : "");
    at("more").hidden = list.length <= now.length;
  }

  function choose() {
    const head = chosen();
    shown = step;
    for (const e of document.querySelectorAll("[data-head]")) e.hidden = Number(e.dataset.head) !== head;
    for (const e of document.querySelectorAll("[data-line]")) e.classList.toggle("emphasis", Number(e.dataset.line) === head);
    for (const e of document.querySelectorAll("[data-row]")) e.classList.toggle("emphasis", config.heads.length > 1 && Number(e.dataset.row) === head);
    if (at("line-name")) at("line-name").textContent = `head ${head}`;
    load(head);
  }

  at("head").onchange = choose;
  at("order").onchange = () => { shown = step; if (heads.has(chosen())) show(); };
  at("find").oninput = () => { shown = step; if (heads.has(chosen())) show(); };
  document.querySelector(".tools").onsubmit = e => e.preventDefault();
  at("more").onclick = () => {
    const first = shown;
    shown += step;
    show();
    const card = at("cards").children[first];
    if (card) card.querySelector("button").focus();
  };
  setTimeout(choose); // when report is defined
  return { take };
})();
