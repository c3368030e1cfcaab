package discordtest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// formError is a 50035 with one entry in its tree; path is dotted.
func formError(path, code, text string) *apiError {
	tree := map[string]any{}
	treeAdd(tree, path, code, text)
	return &apiError{status: http.StatusBadRequest, code: 50035, text: "Invalid Form Body", tree: tree}
}

func treeAdd(tree map[string]any, path, code, text string) {
	at := tree
	for p := range strings.SplitSeq(path, ".") {
		next, ok := at[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	list, _ := at["_errors"].([]any)
	at["_errors"] = append(list, map[string]any{"code": code, "message": text})
}

// checker gathers violations as Discord's tree of errors.
type checker struct{ tree map[string]any }

func (c *checker) add(path, code, text string) {
	if c.tree == nil {
		c.tree = map[string]any{}
	}
	treeAdd(c.tree, path, code, text)
}

// length counts code points, as Discord does.
func (c *checker) length(path, s string, low, high int) {
	switch n := utf8.RuneCountInString(s); {
	case n > high:
		c.add(path, "BASE_TYPE_MAX_LENGTH", fmt.Sprintf("Must be %d or fewer in length.", high))
	case n < low:
		c.add(path, "BASE_TYPE_BAD_LENGTH", fmt.Sprintf("Must be between %d and %d in length.", low, high))
	}
}

type embed struct {
	Title       string `json:"title"`
	Description string `json:"description"`
	Fields      []struct{ Name, Value string }
	Footer      struct{ Text string }
	Author      struct{ Name string }
	Image       struct{ URL string }
}

type component struct {
	Type        int         `json:"type"`
	Style       int         `json:"style"`
	Label       string      `json:"label"`
	CustomID    string      `json:"custom_id"`
	URL         string      `json:"url"`
	Placeholder string      `json:"placeholder"`
	MaxLength   int         `json:"max_length"`
	Components  []component `json:"components"`
	Options     []struct {
		Label, Value, Description string
	} `json:"options"`
}

// The component types.
const (
	typeRow    = 1
	typeButton = 2
	typeSelect = 3
	typeInput  = 4
)

func validateMessage(m *Message) map[string]any {
	var c checker
	c.length("content", m.Content, 0, 2000)
	c.embeds(m)
	if !emptyList(m.Components) {
		var rows []component
		if err := json.Unmarshal(m.Components, &rows); err != nil {
			c.add("components", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
		}
		c.rows(rows, false)
	}
	for i, a := range m.Attachments {
		c.length("attachments."+strconv.Itoa(i)+".description", a.Description, 0, 1024)
	}
	return c.tree
}

func (c *checker) embeds(m *Message) {
	if emptyList(m.Embeds) {
		return
	}
	var embeds []embed
	if err := json.Unmarshal(m.Embeds, &embeds); err != nil {
		c.add("embeds", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
		return
	}
	if len(embeds) > 10 {
		c.add("embeds", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
	}
	total := 0
	count := func(path, s string, high int) {
		s = strings.TrimSpace(s)
		total += utf8.RuneCountInString(s)
		c.length(path, s, 0, high)
	}
	for i, e := range embeds {
		at := "embeds." + strconv.Itoa(i)
		count(at+".title", e.Title, 256)
		count(at+".description", e.Description, 4096)
		count(at+".footer.text", e.Footer.Text, 2048)
		count(at+".author.name", e.Author.Name, 256)
		if len(e.Fields) > 25 {
			c.add(at+".fields", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
		}
		for j, f := range e.Fields {
			field := at + ".fields." + strconv.Itoa(j)
			count(field+".name", f.Name, 256)
			count(field+".value", f.Value, 1024)
			if strings.TrimSpace(f.Name) == "" || strings.TrimSpace(f.Value) == "" {
				c.add(field, "BASE_TYPE_REQUIRED", "This field is required")
			}
		}
		if name, ok := strings.CutPrefix(e.Image.URL, "attachment://"); ok && !hasAttachment(m, name) {
			c.add(at+".image.url", "EMBED_ATTACHMENT_UNKNOWN", "Referenced attachment not found: "+name)
		}
	}
	if total > 6000 {
		c.add("embeds", "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")
	}
}

func hasAttachment(m *Message, name string) bool {
	for _, a := range m.Attachments {
		if a.Filename == name {
			return true
		}
	}
	return false
}

// rows checks action rows of a message or a modal.
func (c *checker) rows(rows []component, modal bool) {
	if len(rows) > 5 {
		c.add("components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
	}
	seen := map[string]bool{}
	for i, row := range rows {
		at := "components." + strconv.Itoa(i)
		if row.Type != typeRow {
			c.add(at+".type", "BASE_TYPE_CHOICES", "Value of field \"type\" must be one of (1,).")
			continue
		}
		if len(row.Components) == 0 || len(row.Components) > 5 {
			c.add(at+".components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
		}
		for j, x := range row.Components {
			at := at + ".components." + strconv.Itoa(j)
			if modal != (x.Type == typeInput) {
				c.add(at+".type", "COMPONENT_TYPE_INVALID", "The specified component type is invalid in this place")
			}
			if x.CustomID != "" && seen[x.CustomID] {
				c.add(at+".custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")
			}
			seen[x.CustomID] = true
			c.element(at, x, len(row.Components))
		}
	}
}

func (c *checker) element(at string, x component, inRow int) {
	switch x.Type {
	case typeButton:
		c.length(at+".label", x.Label, 1, 80)
		if x.Style == 5 {
			c.length(at+".url", x.URL, 1, 512)
			if !strings.HasPrefix(x.URL, "https://") && !strings.HasPrefix(x.URL, "http://") && !strings.HasPrefix(x.URL, "discord://") {
				c.add(at+".url", "URL_TYPE_INVALID_SCHEME", "Scheme must be one of ('http', 'https', 'discord').")
			} else if !reachable(x.URL) {
				c.add(at+".url", "URL_TYPE_INVALID_URL", "Not a well formed URL.")
			}
			if x.CustomID != "" {
				c.add(at, "BUTTON_COMPONENT_CUSTOM_ID_AND_URL_MUTUALLY_EXCLUSIVE", "A custom id and url cannot both be specified")
			}
		} else {
			c.length(at+".custom_id", x.CustomID, 1, 100)
			if x.Style < 1 || x.Style > 4 {
				c.add(at+".style", "BASE_TYPE_CHOICES", "Value of field \"style\" must be one of (1, 2, 3, 4, 5, 6).")
			}
		}
	case typeSelect:
		c.length(at+".custom_id", x.CustomID, 1, 100)
		c.length(at+".placeholder", x.Placeholder, 0, 150)
		if inRow != 1 || len(x.Options) == 0 || len(x.Options) > 25 {
			c.add(at+".options", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 25 in length.")
		}
		for k, o := range x.Options {
			opt := at + ".options." + strconv.Itoa(k)
			c.length(opt+".label", o.Label, 1, 100)
			c.length(opt+".value", o.Value, 1, 100)
			c.length(opt+".description", o.Description, 0, 100)
		}
	case typeInput:
		c.length(at+".custom_id", x.CustomID, 1, 100)
		c.length(at+".label", x.Label, 1, 45)
		c.length(at+".placeholder", x.Placeholder, 0, 100)
		if x.MaxLength > 4000 {
			c.add(at+".max_length", "NUMBER_TYPE_MAX", "int value should be less than or equal to 4000.")
		}
	default:
		c.add(at+".type", "BASE_TYPE_CHOICES", "Value of field \"type\" must be one of the known component types.")
	}
}

// reachable is stricter than Discord, which refuses host names without a dot: a
// button that leads to a loopback or private address is a mistake too.
func reachable(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil {
		return !ip.IsLoopback() && !ip.IsPrivate() && !ip.IsUnspecified()
	}
	return strings.Contains(u.Hostname(), ".") || u.Scheme == "discord"
}

// commandName is the pattern of command and option names; a name must also be
// its own lower-case form.
var commandName = regexp.MustCompile(`^[-_'\p{L}\p{N}\p{Devanagari}\p{Thai}]{1,32}$`)

type option struct {
	Type         int      `json:"type"`
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	Required     bool     `json:"required"`
	Autocomplete bool     `json:"autocomplete"`
	MinLength    *int     `json:"min_length"`
	MaxLength    *int     `json:"max_length"`
	MinValue     *float64 `json:"min_value"`
	MaxValue     *float64 `json:"max_value"`
	Choices      []struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	} `json:"choices"`
	Options []option `json:"options"`

	NameLocalizations        map[string]string `json:"name_localizations"`
	DescriptionLocalizations map[string]string `json:"description_localizations"`
}

func validateCommands(raw []json.RawMessage) map[string]any {
	var c checker
	names := map[string]bool{}
	if len(raw) > 100 {
		c.add("", "APPLICATION_COMMAND_TOO_MANY", "Maximum number of application commands reached (100).")
	}
	for i, text := range raw {
		var cmd option
		at := strconv.Itoa(i)
		if err := json.Unmarshal(text, &cmd); err != nil {
			c.add(at, "DICT_TYPE_CONVERT", err.Error())
			continue
		}
		if names[cmd.Name] {
			c.add(at+".name", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique")
		}
		names[cmd.Name] = true
		if n := c.command(at, &cmd); n > 8000 {
			c.add(at, "APPLICATION_COMMAND_TOO_LARGE", "Command exceeds maximum size (8000)")
		}
	}
	return c.tree
}

// command checks a command or option and returns its size in characters.
func (c *checker) command(at string, o *option) int {
	size := utf8.RuneCountInString(o.Name) + longest(o.Description, o.DescriptionLocalizations)
	names := map[string]string{"": o.Name}
	for l, n := range o.NameLocalizations {
		names["_localizations."+l] = n
	}
	for l, n := range names {
		if !commandName.MatchString(n) || strings.ToLower(n) != n {
			c.add(at+".name"+l, "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
		}
	}
	c.length(at+".description", o.Description, 1, 100)
	for l, d := range o.DescriptionLocalizations {
		c.length(at+".description_localizations."+l, d, 1, 100)
	}
	if len(o.Options) > 25 {
		c.add(at+".options", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
	}
	if o.Autocomplete && len(o.Choices) > 0 {
		c.add(at+".choices", "APPLICATION_COMMAND_OPTIONS_AUTOCOMPLETE_CHOICES", "autocomplete options cannot have choices")
	}
	if o.MinLength != nil && (*o.MinLength < 0 || *o.MinLength > 6000) || o.MaxLength != nil && (*o.MaxLength < 1 || *o.MaxLength > 6000) {
		c.add(at+".max_length", "NUMBER_TYPE_MAX", "int value should be less than or equal to 6000.")
	}
	for _, v := range []*float64{o.MinValue, o.MaxValue} {
		if v != nil && (*v > 1<<53 || *v < -1<<53) {
			c.add(at+".max_value", "NUMBER_TYPE_MAX", "out of range")
		}
	}
	if len(o.Choices) > 25 {
		c.add(at+".choices", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
	}
	for j, choice := range o.Choices {
		c.length(at+".choices."+strconv.Itoa(j)+".name", choice.Name, 1, 100)
		size += utf8.RuneCountInString(choice.Name)
		if v, ok := choice.Value.(string); ok {
			c.length(at+".choices."+strconv.Itoa(j)+".value", v, 1, 100)
			size += utf8.RuneCountInString(v)
		}
	}
	optional, sub, plain := false, false, false
	seen := map[string]bool{}
	for j := range o.Options {
		child := &o.Options[j]
		at := at + ".options." + strconv.Itoa(j)
		size += c.command(at, child)
		if child.Required && optional {
			c.add(at, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", "Required options must be placed before non-required options")
		}
		if seen[child.Name] {
			c.add(at, "APPLICATION_COMMAND_OPTIONS_NAME_DUPLICATED", "option names must be unique")
		}
		seen[child.Name] = true
		optional = optional || !child.Required
		if child.Type <= 2 {
			sub = true
		} else {
			plain = true
		}
		if child.Type < 1 || child.Type > 11 {
			c.add(at+".type", "BASE_TYPE_CHOICES", "unknown option type")
		}
	}
	if sub && plain {
		c.add(at+".options", "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID", "Sub-commands and sub-command groups are mutually exclusive with other options")
	}
	return size
}

func longest(s string, others map[string]string) int {
	n := utf8.RuneCountInString(s)
	for _, o := range others {
		n = max(n, utf8.RuneCountInString(o))
	}
	return n
}

func (s *Server) commandList() []map[string]any {
	out := []map[string]any{}
	for _, raw := range s.commands {
		var m map[string]any
		_ = json.Unmarshal(raw, &m) // was validated
		out = append(out, m)
	}
	return out
}

// commandsPerDay is how many new commands Discord takes in a day.
const commandsPerDay = 200

func (s *Server) overwriteCommands(c *call) (int, any, *apiError) {
	var raw []json.RawMessage
	if err := decode(c, &raw); err != nil {
		return 0, nil, err
	}
	if tree := validateCommands(raw); tree != nil {
		return 0, nil, &apiError{status: 400, code: 50035, text: "Invalid Form Body", tree: tree}
	}
	old := map[string]string{}
	for _, v := range s.commandList() {
		old[v["name"].(string)], _ = v["id"].(string)
	}
	var next []json.RawMessage
	created := 0
	for _, text := range raw {
		var m map[string]any
		_ = json.Unmarshal(text, &m)
		id := old[m["name"].(string)]
		if id == "" {
			id = s.id()
			created++
		}
		m["id"], m["application_id"], m["version"] = id, s.AppID, s.id()
		if m["type"] == nil {
			m["type"] = 1
		}
		text, _ = json.Marshal(m)
		next = append(next, text)
	}
	if s.created+created > commandsPerDay {
		return 0, nil, failure(http.StatusTooManyRequests, 30034, "Max number of daily application command creates has been reached (200)")
	}
	s.created += created
	s.commands = next
	return 200, s.commandList(), nil
}
