// An app built on @slack/bolt completes a /dream against the test server over
// Socket Mode: it acknowledges, posts, updates and answers a button.
// Usage: node slack.js API_URL BOT_TOKEN APP_TOKEN
const { App, LogLevel } = require('@slack/bolt');

const [slackApiUrl, token, appToken] = process.argv.slice(2);
const app = new App({ token, appToken, socketMode: true, clientOptions: { slackApiUrl }, logLevel: LogLevel.ERROR });

app.command('/dream', async ({ command, ack, client, respond }) => {
  await ack({ response_type: 'ephemeral', text: 'Queued: ' + command.text });
  const status = await client.chat.postMessage({ channel: command.channel_id, text: 'Running: ' + command.text });
  await client.chat.update({ channel: command.channel_id, ts: status.ts, text: 'Finished' });
  await client.filesUploadV2({ filename: 'views.png', file: Buffer.from('png') });
  await client.chat.postMessage({
    channel: command.channel_id, thread_ts: status.ts, text: `<@${command.user_id}> is ready`,
    blocks: [
      { type: 'section', text: { type: 'mrkdwn', text: `<@${command.user_id}> is ready` } },
      { type: 'actions', elements: [{ type: 'button', action_id: 'b0', value: 'v1:vary:1', text: { type: 'plain_text', text: 'Vary' } }] },
    ],
  });
  await respond({ text: 'thanks', replace_original: false });
  console.log('done');
});

app.action('b0', async ({ ack, respond, action }) => {
  await ack();
  await respond({ text: 'clicked ' + action.value, replace_original: false });
});

app.start().then(() => console.log('ready'), (err) => { console.error(err); process.exit(1); });
