import { command, jobs, press, type Button, type Job, type Reply } from "./api";
import { el } from "./dom";
import { JobCard } from "./jobcard";

function consolePage(form: HTMLFormElement): void {
  const input = form.querySelector("textarea")!;
  const log = document.querySelector("#log")!;
  const history: string[] = [];
  let at = 0;

  const say = (line: string, ...answer: Node[]) => {
    log.prepend(el("section", { class: "turn" }, el("p", { class: "line" }, line), ...answer));
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const line = input.value;
    if (line.trim() === "") return;
    history.push(line);
    at = history.length;
    input.value = "";
    void run(line, say);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === "ArrowUp" && input.value === "" && at > 0) {
      input.value = history[--at] ?? "";
    }
  });
  void gallery();
}

type Say = (line: string, ...answer: Node[]) => void;

async function run(line: string, say: Say): Promise<void> {
  await answer(line, command(line), say);
}

async function answer(line: string, wish: Promise<Reply>, say: Say): Promise<void> {
  try {
    const reply = await wish;
    const parts: Node[] = [el("p", { class: reply.error ? "reply error" : "reply" }, reply.text)];
    // A job's card has its own Cancel.
    const buttons = (reply.buttons ?? []).filter((b) => !(reply.job && b.id.startsWith("v1:cancel:")));
    if (buttons.length > 0) parts.push(el("p", { class: "buttons" }, ...buttons.map((b) => button(b, say))));
    if (reply.job) parts.push(new JobCard(reply.job, false).node);
    if (reply.jobs) parts.push(table(reply.jobs));
    say(line, ...parts);
  } catch {
    say(line, el("p", { class: "reply error" }, "dreamcad does not answer; is it still running?"));
  }
}

function button(b: Button, say: Say): Node {
  const node = el("button", { type: "button", class: "quiet" }, b.label);
  node.addEventListener("click", () => {
    if (b.confirm && !window.confirm(b.confirm)) return;
    void answer(b.label, press(b), say);
  });
  return node;
}

function table(list: Job[]): Node {
  return el("table", {}, el("tbody", {}, ...list.map((job) =>
    el("tr", {},
      el("td", {}, el("a", { href: `/jobs/${job.id}` }, job.short)),
      el("td", {}, job.prompt),
      el("td", {}, job.state)))));
}

/** Pictures of what was made before. */
async function gallery(): Promise<void> {
  const place = document.querySelector("#gallery");
  if (!place) return;
  try {
    const done = (await jobs()).filter((job) => (job.files ?? []).length > 0);
    place.replaceChildren(...done.map((job) => {
      const files = job.files ?? [];
      const picture = files.find((f) => f.role === "turntable") ?? files.find((f) => f.role === "view");
      return el("a", { href: `/jobs/${job.id}`, class: "tile", title: job.prompt },
        picture && el("img", { src: picture.url, alt: job.prompt, loading: "lazy", width: "128", height: "128" }));
    }));
  } catch {
    place.replaceChildren();
  }
}

const form = document.querySelector<HTMLFormElement>("#prompt");
if (form) consolePage(form);
const page = document.querySelector("#job");
const data = document.querySelector("#job-data");
if (page && data) page.replaceChildren(new JobCard(JSON.parse(data.textContent ?? "{}") as Job, true).node);
