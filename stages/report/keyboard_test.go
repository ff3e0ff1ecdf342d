package report_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// What a person does with the page, with the keyboard alone.
func withKeyboard(t *testing.T, files map[string]string, folder string) {
	b := open(t, folder, screens[2])
	shown := func() []string {
		return value[[]string](b, `[...document.querySelectorAll(".card h3 button")].map(e => e.textContent)`)
	}
	first := parse(t, files, 0)
	if got := shown(); len(got) != 6 || got[0] != fmt.Sprint(first.Order[0]) {
		t.Errorf("clusters %v, want %v", got, first.Order)
	}

	// Part of a name finds the cluster that shows it, as text.
	find := func(query string) {
		b.run(`document.querySelector("#find").value = ""`)
		b.do(chromedp.SendKeys(chromedp.CSS("#find"), query))
	}
	place := -1
	for i := range first.Name {
		if first.image(i) == hostileKey {
			place = i
		}
	}
	if place < 0 {
		t.Fatal("the hostile key is not among the images shown: the test shows nothing")
	}
	find("<script>alert")
	if got := shown(); len(got) != 1 {
		t.Errorf("%q finds clusters %v, want one", "<script>alert", got)
	}
	b.do(chromedp.Focus(chromedp.CSS(".card h3 button")), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#look[open]")))
	if names := value[string](b, `document.querySelector("#look").innerText`); !strings.Contains(names, hostileKey) {
		t.Errorf("the dialog does not name %s: %s", hostileKey, names)
	}
	b.screenshot("opened")
	b.do(chromedp.KeyEvent(kb.Escape), chromedp.WaitNotVisible(chromedp.CSS("#look")))
	if focus := value[string](b, `document.activeElement.closest(".card") ? "card" : document.activeElement.tagName`); focus != "card" {
		t.Errorf("after the dialog the focus is on %s", focus)
	}
	// A number is a cluster, a class finds those that are mostly of it.
	find("4")
	if got := shown(); len(got) != 1 || got[0] != "4" {
		t.Errorf("4 finds %v", got)
	}
	find("onerror")
	if n := len(shown()); n == 0 {
		t.Error("no cluster is found by its class")
	}
	find("there is no such thing")
	if got := value[string](b, `document.querySelector("#found").textContent`); !strings.HasPrefix(got, "0 of 6") || len(shown()) != 0 {
		t.Errorf("%q, %v", got, shown())
	}
	find("shard.tar › member/")
	if len(shown()) == 0 {
		t.Error("no cluster is found by a tar's name")
	}

	// The other head is loaded when it is chosen, and the order obeyed.
	find(" ")
	b.do(chromedp.Focus(chromedp.CSS("#head")), chromedp.KeyEvent(kb.ArrowDown))
	b.await(`document.querySelector("#head").value === "1" && document.querySelector("#found").textContent.startsWith("6 clusters")`)
	b.choose("#order", "3")
	second := parse(t, files, 1)
	least := 0
	for k, sure := range second.Sure {
		if sure < second.Sure[least] {
			least = k
		}
	}
	if got := shown(); len(got) != 6 || got[0] != fmt.Sprint(least) {
		t.Errorf("least sure first: %v, want %d first", got, least)
	}
	if visible := value[[]string](b, `[...document.querySelectorAll(".pair")].filter(e => e.getClientRects().length).map(e => e.dataset.head)`); len(visible) != 1 || visible[0] != "1" {
		t.Errorf("charts of heads %v are shown", visible)
	}
	b.drawn()
	b.fine(folder)
}

// Without its data the page says what is wrong.
func withoutData(t *testing.T, folder string) {
	if err := os.Remove(filepath.Join(folder, "data", "head-1.js")); err != nil {
		t.Fatal(err)
	}
	b := open(t, folder, screens[0])
	b.choose("#head", "1")
	b.await(`document.querySelector("#found").textContent.includes("data/head-1.js cannot be loaded")`)
}
