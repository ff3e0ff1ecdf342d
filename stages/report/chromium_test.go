package report_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium returns the path of the browser, or skips the test.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("SELA_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("SELA_REQUIRE_CHROMIUM") != "" {
		t.Fatal("Chromium is not there: run make chromium, or name it in SELA_CHROMIUM")
	}
	t.Skip("Chromium is not there: run make chromium, or name it in SELA_CHROMIUM")
	return ""
}

// one browser serves all tests, a tab each.
var one struct {
	sync.Once
	ctx context.Context
	end func()
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if one.end != nil {
		one.end()
	}
	os.Exit(code)
}

func sharedBrowser(t *testing.T) context.Context {
	t.Helper()
	path := chromium(t)
	one.Do(func() {
		dir, err := os.MkdirTemp("", "sela-chromium-")
		if err != nil {
			one.err = err
			return
		}
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
			chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(dir))
		allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, cancel := chromedp.NewContext(allocator)
		one.ctx, one.err = ctx, chromedp.Do(ctx)
		one.end = func() {
			cancel()
			end()
			_ = os.RemoveAll(dir) // temporary
		}
	})
	if one.err != nil {
		t.Fatalf("start %s: %v", path, one.err)
	}
	return one.ctx
}

// browser is a page opened from the disk. It gathers what the page must not do.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	wrong    []string
	requests []string
}

// screen is how the page is looked at.
type screen struct {
	name   string
	width  int64
	height int64
	dark   bool
}

var screens = []screen{{"phone", 390, 844, false}, {"phone-dark", 390, 844, true}, {"desktop", 1280, 900, false}, {"desktop-dark", 1280, 900, true}}

// open loads index.html of a folder. There is no network but the disk.
func open(t *testing.T, folder string, s screen) *browser {
	t.Helper()
	tab, cancel := chromedp.NewContext(sharedBrowser(t))
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(tab, 5*time.Minute)
	t.Cleanup(stop)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("start %s: %v", chromium(t), err)
	}
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.width < 600})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	b.do(chromedp.Navigate("file://"+folder+"index.html"), chromedp.WaitVisible(chromedp.CSS("#cards .card")))
	return b
}

// call gives the browser a command of its protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.wrong = append(b.wrong, fmt.Sprintf("console %s: %v", e.Type, e.Args))
	case *runtime.EventExceptionThrown:
		b.wrong = append(b.wrong, "exception: "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		b.wrong = append(b.wrong, fmt.Sprintf("%s %s: %s", e.Entry.Source, e.Entry.Level, e.Entry.Text))
	case *page.EventJavascriptDialogOpening: // which now waits for an answer
		b.wrong = append(b.wrong, "a script ran: dialog "+e.Message)
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *network.EventLoadingFailed:
		b.wrong = append(b.wrong, "not loaded: "+e.ErrorText)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("%v (%v)", err, b.wrong)
	}
}

// value evaluates an expression.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%v (%v)", err, b.wrong)
	}
	return v
}

// run evaluates an expression for what it does.
func (b *browser) run(expression string) {
	b.t.Helper()
	value[bool](b, expression+"; true")
}

// await waits until an expression is true.
func (b *browser) await(expression string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(30*time.Second))); err != nil {
		b.t.Fatalf("%s: %v (%v)", expression, err, b.wrong)
	}
}

// choose picks an option of a menu.
func (b *browser) choose(menu, option string) {
	b.t.Helper()
	b.run(fmt.Sprintf("{ const e = document.querySelector(%q); e.value = %q; e.dispatchEvent(new Event('change')); }", menu, option))
}

// drawn waits until every image in sight is there, with all others asked for,
// and returns their number.
func (b *browser) drawn() int {
	b.t.Helper()
	b.run(`for (const i of document.images) i.loading = "eager"`)
	b.await(`[...document.images].every(i => i.complete && i.naturalWidth > 0)`)
	return value[int](b, `document.images.length`)
}

// screenshot takes the whole page, and keeps it where SELA_SCREENSHOTS says.
func (b *browser) screenshot(name string) image.Image {
	b.t.Helper()
	raw, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("SELA_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	return img
}

// fine requires that the page did nothing wrong and asked for nothing but files
// of its folder.
func (b *browser) fine(folder string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		b.t.Error(w)
	}
	if len(b.requests) < 3 {
		b.t.Errorf("only %d files were asked for", len(b.requests))
	}
	for _, r := range b.requests {
		if !strings.HasPrefix(r, "file://"+folder) {
			b.t.Errorf("asked for %.100s", r)
		}
	}
}

// overflow names the elements that stick out of the page, unless they lie in a
// part that scrolls by itself.
const overflow = `(() => {
	const wide = document.documentElement.clientWidth, out = [];
	if (document.documentElement.scrollWidth > wide) out.push("the page is " + document.documentElement.scrollWidth + " wide");
	for (const e of document.body.querySelectorAll("*")) {
		const r = e.getBoundingClientRect();
		if (r.width === 0 || e.closest(".scroll, .tile, pre, .skip, dialog:not([open])")) continue;
		if (r.right > wide + 1 || r.left < -1) out.push(e.tagName + "." + e.className + " from " + r.left + " to " + r.right);
	}
	return out.slice(0, 5);
})()`

// contrast is the smallest ratio of the luminances of text and what is behind
// it.
const contrast = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const luminance = c => {
		canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
		const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	let worst = 99;
	for (const e of document.querySelectorAll("h1, h2, p, a, th, td, dt, dd, label, select, button, .axis span, .facts span")) {
		if (!e.getClientRects().length || !e.textContent.trim()) continue;
		let behind = e, color = "rgba(0, 0, 0, 0)";
		for (; behind && color === "rgba(0, 0, 0, 0)"; behind = behind.parentElement) color = getComputedStyle(behind).backgroundColor;
		const a = luminance(getComputedStyle(e).color), b = luminance(color);
		worst = Math.min(worst, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
	}
	return worst;
})()`

// The page as a person sees it, on a phone and a desk, by day and by night.
func TestInChromium(t *testing.T) {
	chromium(t)
	w := newWorld(t)
	o := w.options(t)
	files, _ := made(t, o)
	folder := localFolder(o)
	for _, s := range screens {
		t.Run(s.name, func(t *testing.T) {
			b := open(t, folder, s)
			if n := b.drawn(); n < 40 {
				t.Errorf("%d images on the page", n)
			}
			shot := b.screenshot(s.name)
			if shot.Bounds().Dx() != int(s.width) {
				t.Errorf("the screenshot is %d wide", shot.Bounds().Dx())
			}
			if n := colours(shot); n < 300 {
				t.Errorf("the screenshot has %d colours: no images are drawn", n)
			}
			if wide := value[[]string](b, overflow); len(wide) > 0 {
				t.Errorf("sticking out: %s", strings.Join(wide, "; "))
			}
			if ratio := value[float64](b, contrast); ratio < 4.5 {
				t.Errorf("contrast of %.2f", ratio)
			}
			text := value[string](b, `document.body.innerText`)
			for _, part := range []string{"tiny", "Clusters", "Balance and confidence", "Convergence of the solve", "Quarantine", "Provenance",
				"6 clusters", "no known image format"} {
				if !strings.Contains(text, part) {
					t.Errorf("the page does not say %q", part)
				}
			}
			if small := value[[]string](b, `[...document.querySelectorAll("p, td, th, span, dd, dt, li")].filter(e => e.getClientRects().length && e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 11.5).map(e => e.className + ": " + e.textContent.slice(0, 30))`); len(small) > 0 {
				t.Errorf("too small to read: %q", small[:min(len(small), 5)])
			}
			light := luminance(shot.At(1, 1))
			if s.dark == (light > 0.5) {
				t.Errorf("luminance %.2f of the paper, dark: %v", light, s.dark)
			}
			b.do(chromedp.Click(chromedp.CSS(".card h3 button")), chromedp.WaitVisible(chromedp.CSS("#look[open]")))
			if wide := value[[]string](b, overflow); len(wide) > 0 {
				t.Errorf("sticking out of an opened cluster: %s", strings.Join(wide, "; "))
			}
			b.fine(folder)
		})
	}
	t.Run("keyboard", func(t *testing.T) { withKeyboard(t, files, folder) })
	t.Run("without its data", func(t *testing.T) { withoutData(t, folder) })
}

func luminance(c color.Color) float64 {
	r, g, b, _ := c.RGBA()
	return float64(r+g+b) / 3 / 0xffff
}

// colours counts the colours of an image, each channel in 16 steps.
func colours(img image.Image) int {
	seen := map[[3]uint32]bool{}
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			r, g, b, _ := img.At(x, y).RGBA()
			seen[[3]uint32{r >> 12, g >> 12, b >> 12}] = true
		}
	}
	return len(seen)
}
