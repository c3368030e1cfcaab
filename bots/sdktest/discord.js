// A bot built on discord.js completes a /dream against the test server: it logs
// in by gateway, registers the command, answers the interaction, edits the
// answer and posts a message with a file that mentions one person.
// Usage: node discord.js URL TOKEN
const { Client, Events, REST, Routes, AttachmentBuilder, ActionRowBuilder, ButtonBuilder, ButtonStyle } = require('discord.js');

const [url, token] = process.argv.slice(2);
const client = new Client({ intents: [], rest: { api: url + '/api', version: '10' } });

client.once(Events.ClientReady, async (ready) => {
  const rest = new REST({ api: url + '/api', version: '10' }).setToken(token);
  await rest.put(Routes.applicationCommands(ready.application.id), {
    body: [{ name: 'dream', description: 'make it', options: [{ type: 3, name: 'prompt', description: 'what', required: true }] }],
  });
  console.log('ready');
});

client.on(Events.InteractionCreate, async (interaction) => {
  if (!interaction.isChatInputCommand() || interaction.commandName !== 'dream') return;
  const prompt = interaction.options.getString('prompt');
  const row = new ActionRowBuilder().addComponents(new ButtonBuilder().setCustomId('v1:cancel:1').setLabel('Cancel').setStyle(ButtonStyle.Danger));
  const answer = await interaction.reply({ content: 'Queued: ' + prompt, components: [row], withResponse: true });
  await interaction.editReply({ content: 'Running: ' + prompt });
  await client.rest.post(Routes.channelMessages(interaction.channelId), {
    body: { content: `<@${interaction.user.id}> is ready: @everyone`, allowed_mentions: { parse: [], users: [interaction.user.id] }, message_reference: { message_id: answer.resource.message.id } },
    files: [{ name: 'views.png', data: Buffer.from('png') }],
  });
  console.log('done');
});

client.on(Events.Error, (err) => { console.error(err); process.exit(1); });
client.login(token).catch((err) => { console.error(err); process.exit(1); });
