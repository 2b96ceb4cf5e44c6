package traffic

import (
	"errors"
	"strings"
	"testing"
)

// A budget is one for all who read under it.
func TestBudget(t *testing.T) {
	b := NewBudget(10)
	ctx := WithBudget(t.Context(), b)
	var many *TooMuchError
	buf := make([]byte, 8)
	if _, err := Body(ctx, strings.NewReader("12345678")).Read(buf); err != nil || b.Exceeded() {
		t.Errorf("8 of 10 bytes: %v", err)
	}
	if _, err := Body(ctx, strings.NewReader("12345678")).Read(buf); !errors.As(err, &many) || !b.Exceeded() {
		t.Errorf("16 of 10 bytes: %v", err)
	}
	if _, err := Body(t.Context(), strings.NewReader("12345678")).Read(buf); err != nil {
		t.Errorf("without a budget: %v", err)
	}
}
