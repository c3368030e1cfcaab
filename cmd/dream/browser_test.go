package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// browser drives one tab of a real Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context
	s   *service
}

// openBrowser starts Chromium with software rendering, so that WebGL works
// without a GPU.
func openBrowser(t *testing.T, s *service) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(2*time.Minute), // a cold start beside other tests
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("use-angle", "swiftshader"),
		chromedp.Flag("enable-unsafe-swiftshader", true),
		chromedp.WindowSize(1100, 1000))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx, s: s}
	b.do(chromedp.Navigate(s.url))
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v\n%s", err, b.s.output)
	}
}

// until polls a JavaScript expression until it is truthy and returns its value.
func until[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Poll[T](expression,
		chromedp.WithPollingInterval(200*time.Millisecond), chromedp.WithPollingTimeout(4*time.Minute)))
	if err != nil {
		b.screenshot("failed")
		b.t.Fatalf("browser: waiting for %s: %v\n%s", expression, err, b.s.output)
	}
	return v
}

// screenshot keeps a picture of the page in the folder DREAM_SCREENSHOTS, if set.
func (b *browser) screenshot(name string) {
	dir := os.Getenv("DREAM_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Logf("screenshot %s: %v", name, err)
	}
}

// drag moves the mouse over the element with the button held.
func (b *browser) drag(selector string, dx float64) {
	b.t.Helper()
	place := until[[]float64](b, fmt.Sprintf(`(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector(%q).getBoundingClientRect())`, selector))
	x, y := place[0], place[1]
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMousePressed, x, y, chromedp.ButtonLeft))
	for i := 1; i <= 10; i++ {
		b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, x+dx*float64(i)/10, y, chromedp.ButtonLeft))
	}
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseReleased, x+dx, y, chromedp.ButtonLeft))
}

// TestConsoleInBrowser is the main job as a person does it: type the command,
// see four views, turn the model, download OBJ and GLB.
func TestConsoleInBrowser(t *testing.T) {
	s := startUp(t, filepath.Join(t.TempDir(), "data"))
	b := openBrowser(t, s)
	b.do(
		chromedp.SendKeys(chromedp.CSS(`#prompt textarea`), "/dream a ceramic coffee mug --seed 7\r"),
		chromedp.WaitVisible(chromedp.CSS(`article.card`)))
	until[bool](b, `[...document.querySelectorAll("article.card .views img")].filter(i => i.naturalWidth >= 64).length === 4`)
	until[bool](b, `document.querySelector("article.card").dataset.state === "done"`)
	until[bool](b, `[...document.querySelectorAll("article.card .viewer img")].some(i => i.naturalWidth > 0)`)
	b.screenshot("console")

	b.do(chromedp.Click(chromedp.CSS(`article.card a.id`)), chromedp.WaitVisible(chromedp.CSS(`article.card.large`)))
	// The poster takes the pointer until the model is revealed, some frames after it was loaded.
	until[bool](b, `document.querySelector("model-viewer")?.modelIsVisible === true`)
	const orbit = `document.querySelector("model-viewer").getCameraOrbit().theta + 10`
	before := until[float64](b, orbit)
	b.drag("model-viewer", 200)
	until[bool](b, fmt.Sprintf(`Math.abs(%s - %v) > 0.2`, orbit, before))
	b.screenshot("job")

	for role, check := range map[string]func([]byte) error{"mesh-glb": checkGLB, "mesh-obj": checkOBJ} {
		href := until[string](b, fmt.Sprintf(`document.querySelector('a.download[data-role="%s"]').getAttribute("href")`, role))
		if err := check(s.download(href)); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}
