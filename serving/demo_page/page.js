"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const controls = byId("controls"), slider = byId("epsilon");
  const networks = byId("networks"), file = byId("file"), own = byId("own");
  const saved = byId("answers") && JSON.parse(byId("answers").textContent);
  const epsilons = slider.dataset.values.split(",").map(Number);
  const MOST_BYTES = 4 * 2 ** 20;
  // A photograph is sent upright and no larger than this.
  const SIDE = 1024;
  // A picture of one's own, and what the networks on the page are shown.
  let ownImage = null, answered = null;

  const epsilon = () => epsilons[slider.valueAsNumber];
  const checked = () => controls.querySelector("[name=sample]:checked");
  const chosen = () => checked().value;
  // The space does not break.
  const percent = (share) => Math.round(100 * share) + "\u00a0%";
  const written = (value) => (value ? value + "/255" : "0, no attack");

  const showControls = () => {
    byId("radius").value = "ε = " + written(epsilon());
    slider.setAttribute("aria-valuetext", written(epsilon()));
    networks.classList.toggle("with-maps", byId("maps").checked);
  };

  const showProblem = (text) => {
    byId("problem").textContent = text;
    byId("problem").hidden = !text;
  };

  const bar = ([name, share], place) => {
    const row = document.createElement("li");
    const parts = ["name", "share", "bar"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return row.appendChild(part);
    });
    row.classList.toggle("first", place === 0);
    parts[0].textContent = name;
    parts[1].textContent = percent(share);
    const filled = document.createElement("span");
    filled.style.width = 100 * share + "%";
    parts[2].appendChild(filled);
    return row;
  };

  const showSide = (card, side, seen, answer) => {
    const figure = card.querySelector("." + side);
    const [name, share] = seen.classes[0];
    const picture = figure.querySelector(".picture");
    picture.src = seen.image;
    picture.alt = `The picture, ${side}: ${name}, ${percent(share)}`;
    figure.querySelector(".map").src = seen.map;
    figure.querySelector(".map").alt = seen.map_is_empty
      ? `The map is empty: nothing speaks for ${answer.explained}`
      : `Map of what speaks for ${answer.explained}`;
    figure.querySelector("figcaption").textContent =
      side + (seen.map_is_empty ? ", the map is empty" : "");
    figure.querySelector(".classes").replaceChildren(...seen.classes.map(bar));
  };

  const showNetwork = (card, answer) => {
    const verdict = card.querySelector(".verdict");
    const sign = { stands: "✓ ", broken: "✗ ", wrong: "– " }[answer.kind];
    card.dataset.kind = answer.kind;
    verdict.className = "verdict " + answer.kind;
    verdict.textContent = sign + answer.words;
    showSide(card, "clean", answer.clean, answer);
    showSide(card, "attacked", answer.attacked, answer);
    const added = card.querySelector(".added");
    added.src = answer.attacked.added;
    added.alt = "What was added, magnified";
    card.querySelector(".magnified").textContent = epsilon()
      ? `What was added, magnified ${Math.round(127.5 / epsilon())} times ` +
        "(gray: nothing)."
      : "Nothing was added.";
    card.querySelector(".shift").textContent = answer.shift.toFixed(2);
  };

  const show = (answers) => {
    const cards = [...networks.querySelectorAll(".network")];
    cards.forEach((card, i) => showNetwork(card, answers[i]));
    const words = cards.map((c, i) => `${c.dataset.title}: ${answers[i].words}`);
    const picture = controls.querySelector("input:checked + img").alt;
    byId("status").textContent =
      `${picture}, ε = ${written(epsilon())}. ${words.join("; ")}.`;
  };

  const ofSaved = () => {
    const of = saved[Number(chosen())];
    return of[epsilon()].map((n, i) => ({ clean: of[0][i].clean, ...n }));
  };

  const ask = async () => {
    if (saved) return ofSaved();
    const query = new URLSearchParams({ epsilon: epsilon() });
    if (byId("explained").value) query.set("explained", byId("explained").value);
    const isOwn = chosen() === "own";
    if (isOwn) query.set("name", ownImage.name);
    else query.set("sample", chosen());
    const body = isOwn ? ownImage.content : null;
    const response = await fetch("answer?" + query, { method: "POST", body })
      .catch(() => null);
    if (!response) throw new Error("The program that answers is not running.");
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer.networks;
  };

  // One question at a time: what changes meanwhile is asked for afterwards.
  let isAsking = false, isStale = false, problem = "";
  const update = async () => {
    showControls();
    problem = "";
    if (isAsking) { isStale = true; return; }
    isAsking = true;
    networks.setAttribute("aria-busy", "true");
    byId("busy").hidden = false;
    do {
      isStale = false;
      try {
        const answers = await ask();
        if (!isStale) {
          showProblem(problem);
          show(answers);
          answered = { input: checked(), image: ownImage, epsilon: epsilon() };
        }
      } catch (error) {
        problem = error.message;
        showProblem(problem);
        // One that was answered before is not refused: the program has gone.
        if (chosen() === "own" && ownImage !== (answered && answered.image)) {
          restore();
          // The slider may have moved since that was shown.
          isStale = isStale || !answered || answered.epsilon !== epsilon();
        }
      }
    } while (isStale);
    networks.removeAttribute("aria-busy");
    byId("busy").hidden = true;
    isAsking = false;
  };

  // What a browser cannot draw is sent as it is: the program says what it is.
  const prepared = async (given) => {
    const bitmap = await createImageBitmap(given).catch(() => null);
    if (!bitmap) return { name: given.name, content: given, shown: "data:," };
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(scale * bitmap.width));
    canvas.height = Math.max(1, Math.round(scale * bitmap.height));
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const content = await new Promise((resolve) => canvas.toBlob(resolve));
    return { name: given.name, content, shown: canvas.toDataURL() };
  };

  const showOwn = (image) => {
    ownImage = image;
    own.hidden = !image;
    own.querySelector("img").src = image ? image.shown : "data:,";
  };

  // A picture that is refused leaves the choice at what is shown.
  const restore = () => {
    showOwn(answered && answered.image);
    const first = controls.querySelector("[name=sample]");
    (answered ? answered.input : first).checked = true;
  };

  const take = async (given) => {
    if (!given) return;
    const image = await prepared(given);
    const { size } = image.content;
    if (size > MOST_BYTES) {
      showProblem("Expected a picture of at most 4 MiB. Received: " +
        `'${image.name}' of ${(size / 2 ** 20).toFixed(1)} MiB.`);
      return;
    }
    showOwn(image);
    own.querySelector("input").checked = true;
    update();
  };

  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", (event) => {
    if (event.target === file) return;
    if (event.target.id === "maps") showControls(); else update();
  });
  if (file) {
    file.addEventListener("change", () => {
      take(file.files[0]);
      file.value = ""; // the same file again is a change, too
    });
    document.addEventListener("paste", (event) =>
      take(event.clipboardData.files[0]));
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      take(event.dataTransfer.files[0]);
    });
  }
  // A browser may have kept what was chosen before a reload.
  if (chosen() === "own") controls.querySelector("[name=sample]").checked = true;
  update();
})();
