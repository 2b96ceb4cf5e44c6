"use strict";
(() => {
  const table = document.getElementById("images");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.getElementById("controls");
  const search = document.getElementById("search");
  const boxes = [...form.querySelectorAll("input[name=verdict]")];
  const heads = [...table.tHead.rows[0].cells];
  const text = new Map(rows.map((r) => [r, r.textContent.toLowerCase()]));
  const order = new Map(rows.map((r, i) => [r, i]));
  const keys = {
    verdict: (r) => Number(r.dataset.rank),
    image: (r) => r.querySelector(".name").textContent,
    reason: (r) => r.dataset.reason,
    uses: (r) => Number(r.dataset.uses),
  };
  let sort = "", down = false;

  // The state is in the address, behind #: a view can be kept and sent.
  const read = () => {
    const p = new URLSearchParams(location.hash.slice(1));
    search.value = p.get("q") || "";
    const want = p.has("verdict") ? p.get("verdict").split(",") : boxes.map((b) => b.value);
    for (const b of boxes) b.checked = want.includes(b.value);
    sort = Object.hasOwn(keys, p.get("sort") || "") ? p.get("sort") : "";
    down = p.get("dir") === "desc";
    show();
  };
  const write = () => {
    const p = new URLSearchParams();
    if (search.value) p.set("q", search.value);
    const want = boxes.filter((b) => b.checked).map((b) => b.value);
    if (want.length < boxes.length) p.set("verdict", want.join(","));
    if (sort) p.set("sort", sort);
    if (sort && down) p.set("dir", "desc");
    history.replaceState(null, "", "#" + p);
    show();
  };
  // Words must all be there; fix: and verdict: mean just that of a row.
  const matches = (r, q) => {
    if (q.startsWith("fix:")) return r.dataset.fix === q.slice(4);
    if (q.startsWith("verdict:")) return r.dataset.verdict === q.slice(8);
    return q.toLowerCase().split(/\s+/).every((w) => text.get(r).includes(w));
  };
  const show = () => {
    const want = boxes.filter((b) => b.checked).map((b) => b.value);
    const q = search.value.trim();
    let n = 0;
    for (const r of rows) {
      r.hidden = !want.includes(r.dataset.verdict) || !matches(r, q);
      if (!r.hidden) n++;
    }
    document.getElementById("count").textContent = n + " of " + rows.length;
    const key = keys[sort];
    const sorted = [...rows].sort((a, b) => {
      if (!key) return order.get(a) - order.get(b);
      const x = key(a), y = key(b);
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1) || order.get(a) - order.get(b);
    });
    body.append(...sorted);
    for (const h of heads) {
      if (h.dataset.sort === sort) h.setAttribute("aria-sort", down ? "descending" : "ascending");
      else h.removeAttribute("aria-sort");
    }
  };
  for (const h of heads) {
    const b = document.createElement("button");
    b.type = "button";
    b.textContent = h.textContent;
    h.replaceChildren(b);
    b.addEventListener("click", () => {
      if (sort !== h.dataset.sort) [sort, down] = [h.dataset.sort, h.dataset.sort === "uses"];
      else if (down === (sort === "uses")) down = !down;
      else [sort, down] = ["", false];
      write();
    });
  }
  search.addEventListener("input", write);
  for (const b of boxes) b.addEventListener("change", write);
  form.addEventListener("submit", (e) => e.preventDefault());
  addEventListener("hashchange", () => { read(); if (search.value) form.scrollIntoView(); });
  form.hidden = false;
  read();
})();
