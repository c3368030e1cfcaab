import { command, follow, type FileRecord, type Job } from "./api";
import { bytes, el } from "./dom";

const stages: Record<string, string> = {
  queued: "waiting",
  text: "reading the prompt",
  views: "drawing four views",
  optimise: "shaping",
  extract: "extracting the surface",
  texture: "painting the texture",
  preview: "rendering previews",
  upload: "publishing",
};

const labels: Record<string, string> = {
  "mesh-glb": "GLB",
  "mesh-obj": "OBJ",
  "mesh-mtl": "MTL",
  "mesh-stl": "STL",
  texture: "Texture",
  turntable: "Turntable",
  sheet: "Sheet",
  preview: "Preview",
};

/** A live card of one job: state, progress, views, result and buttons. */
export class JobCard {
  readonly node: HTMLElement;
  private readonly status = el("p", { class: "status", role: "status" });
  private readonly bar = el("progress", { max: "1" });
  private readonly notices = el("div", { class: "notices" });
  private readonly views = el("div", { class: "views" });
  private readonly stage = el("div", { class: "viewer" });
  private readonly links = el("div", { class: "links" });
  private readonly cancel = el("button", { type: "button", class: "quiet" }, "Cancel");
  private shownViews = "";
  private shownModel = "";

  constructor(job: Job, private readonly large: boolean) {
    const title = el("h2", {}, job.prompt);
    const link = el("a", { href: `/jobs/${job.id}`, class: "id" }, job.short);
    this.cancel.addEventListener("click", () => void this.stop(job.id));
    this.node = el("article", { class: large ? "card large" : "card", "data-job": job.id },
      el("header", {}, title, link, this.cancel),
      this.status, this.bar, this.notices, this.views, this.stage, this.links);
    this.show(job);
    if (!job.final) follow(job.id, (next) => this.show(next));
  }

  private async stop(id: string): Promise<void> {
    this.cancel.disabled = true;
    const reply = await command(`/jobs cancel ${id}`);
    if (reply.error) {
      this.status.textContent = reply.text;
      this.cancel.disabled = false;
    }
  }

  private show(job: Job): void {
    this.node.dataset.state = job.state;
    this.status.textContent = describe(job);
    this.cancel.hidden = !job.can_cancel;
    this.bar.hidden = job.final || !job.total;
    if (job.total) this.bar.value = (job.step ?? 0) / job.total;
    this.notices.replaceChildren(...(job.notices ?? []).map((text) => el("p", { class: "notice" }, text)));
    const files = job.files ?? [];
    this.showViews(files, job.prompt);
    this.showModel(files, job.prompt);
    this.links.replaceChildren(...files
      .filter((f) => labels[f.role])
      .map((f) => el("a", { href: f.url, download: f.name, class: "download", "data-role": f.role },
        `${labels[f.role]} `, el("small", {}, bytes(f.bytes)))));
  }

  private showViews(files: FileRecord[], prompt: string): void {
    const views = files.filter((f) => f.role === "view");
    const key = views.map((f) => f.url).join();
    if (key === this.shownViews) return;
    this.shownViews = key;
    this.views.replaceChildren(...views.map((f, i) =>
      el("img", { src: f.url, alt: `${prompt}, view ${i + 1}`, width: "256", height: "256" })));
  }

  private showModel(files: FileRecord[], prompt: string): void {
    const glb = files.find((f) => f.role === "mesh-glb");
    if (!glb || glb.url === this.shownModel) return;
    this.shownModel = glb.url;
    const turntable = files.find((f) => f.role === "turntable");
    if (!this.large) {
      if (turntable) this.stage.replaceChildren(
        el("a", { href: `/jobs/${this.node.dataset.job}` },
          el("img", { src: turntable.url, alt: `${prompt}, turning`, width: "256", height: "256" })));
      return;
    }
    const viewer = document.createElement("model-viewer");
    viewer.setAttribute("src", glb.url);
    viewer.setAttribute("alt", prompt);
    viewer.setAttribute("camera-controls", "");
    viewer.setAttribute("shadow-intensity", "0.6");
    viewer.setAttribute("touch-action", "pan-y");
    if (turntable) viewer.setAttribute("poster", turntable.url);
    this.stage.replaceChildren(viewer);
    void import(new URL("./viewer.js", import.meta.url).href);
  }
}

/** One honest sentence about where the job is. */
function describe(job: Job): string {
  switch (job.state) {
    case "done":
      return "Done";
    case "failed":
    case "quarantined":
      return `Failed: ${job.error ?? "no reason was recorded"}`;
    case "cancelled":
      return "Cancelled";
    case "queued":
    case "scheduled":
    case "paused": {
      const place = job.position ? `number ${job.position} in line` : "in line";
      return job.eta ? `Waiting, ${place}, ${job.eta}` : `Waiting, ${place}`;
    }
    default: {
      const stage = stages[job.stage ?? ""] ?? "working";
      const steps = job.total ? ` (${job.step ?? 0} of ${job.total})` : "";
      return stage.charAt(0).toUpperCase() + stage.slice(1) + steps;
    }
  }
}
