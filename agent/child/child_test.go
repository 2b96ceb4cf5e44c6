package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test program be an agent that gets killed: see TestChildDiesWithTheAgent.
func TestMain(m *testing.M) {
	if err := Harden(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv("NODETRUST_TEST_AGENT") != "" {
		_, _ = New("/bin/sh").Run(context.Background(), script("echo $$ >&2; echo $$; exec sleep 300", func(c *Command) {
			c.FirstLine = func(line []byte) { fmt.Printf("%s", line) }
		}))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func script(text string, more ...func(*Command)) Command {
	c := Command{
		Args:     func(tmp string) []string { return []string{"-c", text, "sh", tmp} },
		Deadline: time.Minute,
	}
	for _, f := range more {
		f(&c)
	}
	return c
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the child has a user of its own only then")
	}
}

// openDir is a directory that the child can get into.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func run(t *testing.T, c Command) Result {
	t.Helper()
	res, err := New("/bin/sh").Run(t.Context(), c)
	if err != nil {
		t.Fatalf("%v (stderr: %s)", err, res.Stderr)
	}
	return res
}

func TestIdentity(t *testing.T) {
	needRoot(t)
	got := string(run(t, script("id -u; id -g; id -G; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status")).Stdout)
	want := "65532\n0\n0\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("KUBECONFIG", "/secret")
	t.Setenv("TOKEN", "secret")
	res := run(t, script(`env; echo "$1"`))
	var names []string
	lines := strings.Split(strings.TrimSpace(string(res.Stdout)), "\n")
	tmp := lines[len(lines)-1]
	for _, l := range lines[:len(lines)-1] {
		name, value, _ := strings.Cut(l, "=")
		switch name {
		case "HOME", "TMPDIR":
			if value != tmp {
				t.Errorf("%s is %q, not %q", name, value, tmp)
			}
		case "PATH", "PWD", "SHLVL", "OLDPWD", "_": // the last four are the shell's own
		default:
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		t.Errorf("environment has %q", names)
	}
	if _, err := os.Stat(tmp); !os.IsNotExist(err) {
		t.Errorf("the child's directory is left: %v", err)
	}
}

func TestFilesOfRootAreOutOfReach(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	policy, token := filepath.Join(dir, "policy.json"), filepath.Join(dir, "token")
	for p, mode := range map[string]os.FileMode{policy: 0o644, token: 0o600} {
		if err := os.WriteFile(p, []byte("content"), mode); err != nil {
			t.Fatal(err)
		}
	}
	res := run(t, script(fmt.Sprintf("cat %s; echo x >%s; cat %s; rm -f %s; mv %s %s.x; chmod 0666 %s; true", policy,
		policy, token, policy, policy, policy, policy)))
	if got := string(res.Stdout); got != "content" {
		t.Errorf("child read %q, want the policy and not the token", got)
	}
	if b, err := os.ReadFile(policy); err != nil || string(b) != "content" {
		t.Errorf("policy is now %q, %v", b, err)
	}
	if info, err := os.Stat(policy); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("policy is now %v, %v", info, err)
	}
}

func TestNoWayToNewPrivileges(t *testing.T) {
	needRoot(t)
	su := filepath.Join(openDir(t), "id")
	b, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Skipf("no id: %v", err)
	}
	if err := os.WriteFile(su, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(su, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if got := string(run(t, script(su+" -u")).Stdout); got != "65532\n" {
		t.Errorf("a setuid program ran as %q", got)
	}
}

func TestInputAndSecrets(t *testing.T) {
	res := run(t, script(`cat; cat "$1/auth.json" "$1/stage/etc/x"; stat -c %a "$1/auth.json" "$1" "$1/stage/etc/x"`,
		func(c *Command) {
			c.Stdin = []byte("in ")
			c.Files = []File{
				{Path: "auth.json", Data: []byte("auth "), Secret: true},
				{Path: "stage/etc/x", Data: []byte("staged\n")},
			}
		}))
	if got, want := string(res.Stdout), "in auth staged\n400\n700\n644\n"; got != want {
		t.Errorf("got %q, want %q (%s)", got, want, res.Stderr)
	}
}

func TestExitStatusIsNoError(t *testing.T) {
	res := run(t, script("echo out; echo one >&2; echo 'nodetrust: error: two' >&2; exit 4"))
	if res.Exit != 4 || string(res.Stdout) != "out\n" || res.Stderr != "nodetrust: error: two" {
		t.Errorf("got %+v", res)
	}
}

func TestFirstLineComesAtOnce(t *testing.T) {
	gate := filepath.Join(openDir(t), "gate")
	var first string
	res := run(t, script(fmt.Sprintf(`echo '{"absent":[]}'; while ! [ -e %s ]; do sleep 0.01; done; echo rest`, gate),
		func(c *Command) {
			c.FirstLine = func(line []byte) {
				first = string(line)
				if err := os.WriteFile(gate, nil, 0o644); err != nil {
					t.Error(err)
				}
			}
		}))
	if first != "{\"absent\":[]}\n" || string(res.Stdout) != first+"rest\n" {
		t.Errorf("first %q, all %q", first, res.Stdout)
	}
}

// alive reports whether a process runs (a zombie does not).
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func pids(t *testing.T, out []byte) []int {
	t.Helper()
	var ps []int
	for f := range strings.FieldsSeq(string(out)) {
		p, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("no pid: %q", f)
		}
		ps = append(ps, p)
	}
	return ps
}

// daemons leaves one process that is out of the child's session and process group twice over, keeping stdout open,
// and a chain of three. It goes on when all three are there, and says who they are.
const daemons = `
setsid sh -c 'setsid sh -c "echo \$\$ >one; exec sleep 300" & exit' &
setsid sh -c 'echo $$ >two; sh -c "echo \$\$ >three; sleep 300; true" & sleep 300; true' &
until [ -s one ] && [ -s two ] && [ -s three ]; do sleep 0.01; done
echo $(cat one two three)
`

func TestDaemonsAreKilledAndReaped(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		err  bool
	}{
		{"after success", daemons, false},
		{"after failure", daemons + "exit 1", false},
		{"after a crash", daemons + "kill -9 $$", true},
		{"after the deadline", daemons + "sleep 300", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := script(tt.text)
			if strings.HasSuffix(tt.name, "deadline") {
				c.Deadline = time.Second
			}
			start := time.Now()
			res, err := New("/bin/sh").Run(t.Context(), c)
			for len(res.Stdout) == 0 && c.Deadline < time.Minute { // it came before the daemons were there
				c.Deadline *= 2
				res, err = New("/bin/sh").Run(t.Context(), c)
			}
			if (err != nil) != tt.err {
				t.Errorf("error %v", err)
			}
			if d := time.Since(start); d > 200*time.Second {
				t.Errorf("took %v: waited for the daemons", d)
			}
			ps := pids(t, res.Stdout)
			if len(ps) != 3 {
				t.Fatalf("wanted three daemons, got %v", ps)
			}
			for _, p := range ps {
				if alive(p) {
					t.Errorf("daemon %d is alive", p)
				}
			}
			if left := childrenOf(os.Getpid()); len(left) != 0 {
				t.Errorf("children are left: %v", left)
			}
		})
	}
}

func TestOtherChildrenAreLeftAlone(t *testing.T) {
	other := exec.Command("sleep", "300")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	run(t, script("true"))
	if !alive(other.Process.Pid) {
		t.Error("a child from before was killed")
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	r := New("/bin/sh")
	c := script("sleep 300")
	c.Deadline = 200 * time.Millisecond
	if _, err := r.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "deadline of 200ms exceeded") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.Run(ctx, script("echo; sleep 300", func(c *Command) { c.FirstLine = func([]byte) { cancel() } }))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	_, err := New("/bin/sh").Run(t.Context(), script("yes"))
	if !errors.Is(err, ErrOutput) { // at the deadline it is another error
		t.Errorf("got %v", err)
	}
	if _, err := New("/bin/sh").Run(t.Context(), script("head -c 1048577 /dev/zero")); !errors.Is(err, ErrOutput) {
		t.Errorf("one byte too many: %v", err)
	}
	if res := run(t, script("head -c 1048576 /dev/zero; head -c 10000000 /dev/zero >&2")); len(res.Stdout) != maxStdout {
		t.Errorf("got %d bytes", len(res.Stdout))
	}
}

func TestMissingProgram(t *testing.T) {
	// only this process's: the tests of other packages have theirs in the same directory
	mine := filepath.Join(os.TempDir(), tmpPrefix+strconv.Itoa(os.Getpid())+"-*")
	if _, err := New("/nonexistent/nodetrust").Run(t.Context(), script("")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(mine)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestChildDiesWithTheAgent(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(exe)
	agent.Env = append(os.Environ(), "NODETRUST_TEST_AGENT=1")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := agent.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	for end := time.Now().Add(time.Minute); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			_ = unix.Kill(pid, unix.SIGKILL)
			t.Fatal("the child outlived the agent")
		}
	}
	// The test process is a subreaper too: it has got the orphan.
	wait(pid, time.Now().Add(time.Minute))
	New("/bin/sh")
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(),
		tmpPrefix+strconv.Itoa(agent.Process.Pid)+"-*")); len(left) != 0 {
		t.Errorf("the next agent left %v", left)
	}
}
