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

export interface Reply {
  text: string;
  error?: boolean;
  job?: Job;
  jobs?: Job[];
}

/** Runs one command line. A refused command is a Reply with error set. */
export async function command(line: string): Promise<Reply> {
  const response = await fetch("/api/command", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ line }),
  });
  return (await response.json()) as Reply;
}

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
