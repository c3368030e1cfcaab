// The console's view of the JSON API (bots/web/api.go holds the other half).

export interface FileRecord {
  role: string;
  name: string;
  media_type: string;
  bytes: number;
  url: string;
}

export interface Job {
  id: string;
  short: string;
  prompt: string;
  kind: "views" | "mesh";
  state: string;
  created: string;
  stage?: string;
  step?: number;
  total?: number;
  position?: number;
  eta?: string;
  error?: string;
  notices?: string[];
  files?: FileRecord[];
  final: boolean;
  can_cancel: boolean;
}

export interface Button {
  id: string;
  label: string;
  confirm?: string;
  danger?: boolean;
}

export interface Reply {
  text: string;
  error?: boolean;
  buttons?: Button[];
  job?: Job;
  jobs?: Job[];
}

async function send(wish: object): Promise<Reply> {
  const response = await fetch("/api/command", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...wish, key: [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16)).join("") }),
  });
  return (await response.json()) as Reply;
}

/** Runs one command line. A refused command is a Reply with error set. */
export const command = (line: string): Promise<Reply> => send({ line });

/** Presses a button of an earlier reply. */
export const press = (button: Button): Promise<Reply> => send({ button: button.id });

export async function jobs(): Promise<Job[]> {
  const response = await fetch("/api/jobs");
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return (await response.json()) as Job[];
}

/** Follows one job until it ends; returns a function that stops following. */
export function follow(id: string, seen: (job: Job) => void): () => void {
  const source = new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
  source.onmessage = (event) => {
    const job = JSON.parse(event.data) as Job;
    seen(job);
    if (job.final) source.close();
  };
  return () => source.close();
}
