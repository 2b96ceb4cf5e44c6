package cli

import (
	"bytes"
	"fmt"
)

// Draw shows a picture of a watch: on a terminal in place of the last one, else below it.
func (s *Screen) Draw(picture []byte, text bool) error {
	if !s.TTY || !text {
		if s.Drawn && text {
			picture = append([]byte("\n"), picture...)
		}
		s.Drawn = true
		_, err := s.W.Write(picture)
		return err
	}
	if !s.Drawn {
		s.Drawn = true
		fmt.Fprint(s.W, hideCursor+clearScreen)
	}
	if h := s.Height(); h > 0 {
		picture = fit(picture, s.Width(), h)
	}
	// Home; each line is cleared behind its end, and all below the last.
	_, err := fmt.Fprintf(s.W, home+"%s"+clearBelow, bytes.ReplaceAll(picture, []byte("\n"), []byte(clearLine+"\n")))
	return err
}

// Leave gives the cursor back.
func (s *Screen) Leave() {
	if s.Drawn {
		fmt.Fprint(s.W, showCursor)
	}
}

// fit leaves out lines before the summary, which is after the last empty line of a table, until picture fits a
// terminal of that width and height, the cursor's line included.
func fit(picture []byte, width, height int) []byte {
	lines := bytes.SplitAfter(picture, []byte("\n"))
	total := 0
	for _, l := range lines {
		total += rows(l, width)
	}
	over := total - height
	if over <= 0 {
		return picture
	}
	table := bytes.Index(picture, []byte("\n\n"))
	if table < 0 {
		keep, left := 0, height-1
		for left > 0 && keep < len(lines) {
			left -= rows(lines[keep], width)
			if left >= 0 {
				keep++
			}
		}
		return bytes.Join(lines[:max(keep, 1)], nil)
	}
	count := bytes.Count(picture[:table+1], []byte("\n"))
	keep := max(count-over-1, 1)
	out := append([][]byte{}, lines[:keep]...)
	out = append(out, fmt.Appendf(nil, "… %d more\n", count-keep))
	return bytes.Join(append(out, lines[count:]...), nil)
}

// rows is how many lines of a terminal one of text takes. Its escape sequences, which set colours, take no room.
func rows(line []byte, width int) int {
	shown, colour := 0, false
	for _, r := range string(bytes.TrimSuffix(line, []byte("\n"))) {
		switch {
		case r == '\x1b':
			colour = true
		case colour:
			colour = r != 'm'
		default:
			shown++
		}
	}
	if width <= 0 || shown == 0 {
		return 1
	}
	return (shown + width - 1) / width
}
