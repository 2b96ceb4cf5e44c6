#!/bin/sh
# Written by nodetrust from the trust config {{.Source}}; edit that instead.
# For readers: {{.Readers}}.
# Digest of the files: {{.Digest}}
#
# Brings the files of the trust config to one host, without more than a POSIX shell and its usual tools.
#
#   sh THIS [--root DIR] [--dry-run]   show what would change; nothing is written (the default)
#   sh THIS [--root DIR] --check       say only whether all is as it should be
#   sh THIS [--root DIR] --apply       write what is missing or different, after a backup
#   sh THIS [--root DIR] --undo        put back what the last --apply replaced
#
# Exit status: 0 all is as it should be, or was made so; 1 it failed or must not be done, nothing was changed unless it says
# so; 2 bad usage; 3 (--dry-run, --check) something is to change.

set -u
LC_ALL=C
export LC_ALL
umask 022

root=
backups=/var/lib/nodetrust/backup
status=0

say() { printf '%s\n' "$*"; }
complain() { printf 'nodetrust: error: %s\n' "$*" >&2; }
die() {
	complain "$@"
	exit 1
}
# want CODE: the exit status becomes CODE; 1 stays.
want() { [ "$status" = 1 ] || status=$1; }

# paths lists the files, policy.json last: it is what turns the others on.
paths() {
	cat <<'NODETRUST_PATHS'
{{range .Files}}{{.Path}}
{{end}}NODETRUST_PATHS
}

# content PATH writes what belongs into the file.
content() {
	case $1 in
{{- range .Files}}
	{{quote .Path}})
		cat <<'{{$.Mark}}'
{{printf "%s" .Data}}{{$.Mark}}
		;;
{{- end}}
	esac
}

# mode PATH is octal, rights PATH the same as ls -l writes it, size PATH the length in bytes.
mode() {
	case $1 in
{{- range .Files}}
	{{quote .Path}}) echo {{printf "%04o" .Mode}} ;;
{{- end}}
	esac
}
rights() {
	case $1 in
{{- range .Files}}
	{{quote .Path}}) echo {{rights .Mode}} ;;
{{- end}}
	esac
}
size() {
	case $1 in
{{- range .Files}}
	{{quote .Path}}) echo {{len .Data}} ;;
{{- end}}
	esac
}

# scopes lists the scopes of registries.d. A scope in two files stops every pull of the host.
scopes() {
	cat <<'NODETRUST_SCOPES'
{{range .Scopes}}{{.}}
{{end}}NODETRUST_SCOPES
}

# keys lists the key files that the policy names. They must be there already.
keys() {
	cat <<'NODETRUST_KEYS'
{{range .Keys}}{{.}}
{{end}}NODETRUST_KEYS
}

length() { wc -c <"$1" | tr -d ' '; }

# right FILE PATH: FILE has the bytes that belong into PATH. The shell drops NUL bytes, so the length counts too.
right() {
	[ "$(length "$1")" = "$(size "$2")" ] && [ "$(cat "$1" && echo .)" = "$(content "$2" && echo .)" ]
}

# state PATH: same, mode (or owner), different, missing, or what is there instead of a file.
state() {
	f=$root$1
	if [ -h "$f" ]; then
		echo link
	elif [ -d "$f" ]; then
		echo directory
	elif [ ! -e "$f" ]; then
		echo missing
	elif [ ! -f "$f" ]; then
		echo special
	elif [ ! -r "$f" ]; then
		echo unreadable
	elif ! right "$f" "$1"; then
		echo different
	else
		# shellcheck disable=SC2012 # stat is not in POSIX
		ls -ldn "$f" | {
			read -r r _ uid gid _
			r=$(printf '%.10s' "$r") # an ACL or a label adds a character
			if [ "$r" != "$(rights "$1")" ]; then
				echo mode
			elif [ "$uid" != "$owner" ] || [ "$gid" != "$group" ]; then
				echo owner
			else
				echo same
			fi
		}
	fi
}

# shared FILE lists the scopes of ours that the registries.d file names, in whatever style of YAML.
shared() {
	scopes | awk '
		NR == FNR { ours[$0]; next }
		{
			sub(/^#.*/, ""); sub(/[ \t]#.*/, "")
			n = split($0, t, /[^A-Za-z0-9._\/:@*-]+/)
			for (i = 1; i <= n; i++) { s = t[i]; sub(/:+$/, "", s); if (s != "" && s in ours && !(s in told)) { print s; told[s] } }
		}' - "$1"
}

# leads FILE: where a link leads to, seen from the root. It is a link itself if it leads in a circle.
leads() {
	to=$1 n=0
	while [ -h "$to" ] && [ "$n" -lt 40 ]; do
		# shellcheck disable=SC2012 # readlink is not in POSIX
		at=$(ls -ld "$to")
		at=${at#*"$to -> "}
		case $at in
		/*) to=$root$at ;;
		*) to=${to%/*}/$at ;;
		esac
		n=$((n + 1))
	done
	say "$to"
}

# odd FILE says why readers fail at what has the name of a file of registries.d, if they do.
odd() {
	t=$(leads "$1")
	if [ "$t" = "$root/dev/null" ]; then
		: # readers find an empty file
	elif [ -h "$t" ]; then
		say "is a link that leads in a circle: every pull fails"
	elif [ ! -e "$t" ]; then
		{{if .Dangling}}say "is a link to nothing: readers before containers-image 5.34 fail at it"{{else}}:{{end}}
	elif [ -d "$1" ] && [ ! -h "$1" ]; then
		{{if .Directories}}say "is a directory: readers before containers-image 5.40 fail at it"{{else}}:{{end}}
	elif [ ! -f "$t" ] || [ ! -r "$t" ]; then
		say "is no readable file: every pull fails"
	fi
}

ours() { paths | while IFS= read -r p; do [ "$p" != "$1" ] || echo yes; done; }

# outside lists the directories that are links out of the root that was given: what is below them is another system's.
outside() {
	[ -n "$root" ] || return 0
	top=$(cd -P "$root" && pwd -P) || return 0
	top=${top%/}
	for d in /etc /etc/containers /etc/containers/registries.d /var /var/lib /var/lib/nodetrust "$backups"; do
		[ -d "$root$d" ] || continue
		to=$(cd -P "$root$d" && pwd -P) || to=nowhere
		case $to in
		"$top"/*) ;;
		*) say "$d leads out of $root, to $to" ;;
		esac
	done
}

# refuse ends the script if there are obstacles: one a line.
refuse() {
	[ -n "$1" ] || return 0
	say "$1" | while IFS= read -r line; do complain "$line"; done
	die "nothing was changed"
}

# obstacles lists what keeps the files from having the effect that they should have.
obstacles() {
	outside
	for d in /root/.config/containers/policy.json /root/.config/containers/registries.d; do
		[ ! -e "$root$d" ] || say "$d is read instead of the file in /etc/containers by every process of root"
	done
	paths | while IFS= read -r p; do
		s=$(state "$p")
		case $s in
		link | directory | special | unreadable) say "$p: is no readable file, but: $s" ;;
		esac
		f=$root/etc/machine-config-daemon/currentconfig
		if [ "$s" != same ] && [ -r "$f" ] && grep -q "\"path\":[ ]*\"$p\"" "$f" </dev/null; then
			say "$p: belongs to the node's MachineConfig: use render --to machineconfig"
		fi
		m=$root/etc/containers/registries.rootful.d/${p##*/}
		[ ! -e "$m" ] || say "${m#"$root"} has the name of $p and is read instead"
	done
	for f in "$root"/etc/containers/registries.d/*.yaml "$root"/etc/containers/registries.d/.*.yaml "$root"/etc/containers/registries.rootful.d/*.yaml{{if .Vendor}} "$root"/usr/share/containers/registries.d/*.yaml "$root"/usr/share/containers/registries.rootful.d/*.yaml{{end}}; do
		[ -e "$f" ] || [ -h "$f" ] || continue
		[ -z "$(ours "${f#"$root"}")" ] || continue
		[ -z "$(ours "/etc/containers/registries.d/${f##*/}")" ] || continue # masked by ours
		o=$(odd "$f")
		[ -z "$o" ] || say "${f#"$root"} $o"
		t=$(leads "$f")
		[ -f "$t" ] || continue
		shared "$t" | while IFS= read -r s; do
			say "${f#"$root"} has the scope $s too: a scope in two files stops every pull"
		done
	done
	keys | while IFS= read -r k; do
		[ -s "$root$k" ] || say "the key file $k is missing or empty"
	done
}

# report prints one line a file, and the differences if they are asked for. It sets the exit status.
report() {
	for p in $(paths); do
		s=$(state "$p")
		say "$p: $s"
		[ "$s" = same ] || want 3
		if [ "$1" = diff ] && [ "$s" = different ] && command -v diff >/dev/null 2>&1; then
			content "$p" | diff -u "$root$p" - || :
		elif [ "$1" = diff ] && [ "$s" = missing ]; then
			content "$p" | sed 's/^/+/'
		fi
	done
	o=$(obstacles)
	if [ -n "$o" ]; then
		say "$o" | while IFS= read -r line; do complain "$line"; done
		want 3
	fi
}

temp() { echo "${1%/*}/.nodetrust.$$.${1##*/}.tmp"; }

# label FILE: the SELinux label that belongs to the path, where there is SELinux.
label() {
	if [ -z "$root" ] && command -v restorecon >/dev/null 2>&1; then
		restorecon "$1" </dev/null || :
	fi
}

# sync FILE: programs that don't know the argument bring everything to disk instead.
# parents LIST brings the directories of the paths to disk.
parents() {
	for p in $1; do
		sync "$root${p%/*}"
	done
}

discard() {
	for p in $(paths); do
		rm -f "$(temp "$root$p")"
	done
}

# stage PATH writes the file beside its place, complete but under another name.
stage() {
	mkdir -p "$root${1%/*}" || return 1
	t=$(temp "$root$1")
	rm -f "$t" &&
		(
			set -C
			umask 077
			content "$1" >"$t"
		) && right "$t" "$1" && chown "$owner:$group" "$t" && chmod "$(mode "$1")" "$t" && label "$t" && sync "$t"
}

# keep PATH adds the file as it is to the backup: a copy, or a note that there was none, with the checksum of what replaces it.
keep() {
	sum=$(content "$1" | cksum) || return 1
	if [ -e "$root$1" ]; then
		mkdir -p "$backup/files${1%/*}" && cp -p "$root$1" "$backup/files$1" && say "copy $sum $1" >>"$backup/list"
	else
		say "none $sum $1" >>"$backup/list"
	fi
}

apply() {
	refuse "$(obstacles)"
	todo=
	for p in $(paths); do
		s=$(state "$p")
		[ "$s" = same ] || todo="$todo $p"
	done
	if [ -z "$todo" ]; then
		say "nothing to do"
		return
	fi
	trap discard EXIT
	trap 'exit 1' HUP INT TERM
	for p in $todo; do
		stage "$p" || die "$p: can't be written; nothing was changed"
	done
	now=$(date -u +%Y%m%dT%H%M%SZ) n=10
	while [ -e "$root$backups/$now.$n" ]; do
		n=$((n + 1))
	done
	backup=$root$backups/$now.$n
	(umask 077 && mkdir -p "${backup%/*}" && mkdir "$backup" && : >"$backup/list") || die "$backup: can't be made; nothing was changed"
	for p in $todo; do
		keep "$p" || die "$p: can't be copied to $backup; nothing was changed"
	done
	sync "$backup" "$backup/list"
	for p in $todo; do
		mv -f "$(temp "$root$p")" "$root$p" || die "$p: can't be replaced; files before it were, undo with --undo"
		label "$root$p"
		say "$p: written"
	done
	parents "$todo"
	say "backup: ${backup#"$root"}"
}

# newest is the last backup that was not undone.
newest() {
	for b in "$root$backups"/*; do
		[ -f "$b/list" ] && echo "$b"
	done | sort | tail -n 1
}

undo() {
	refuse "$(outside)"
	backup=$(newest)
	[ -n "$backup" ] || die "there is no backup below $backups"
	trap discard_undo EXIT
	trap 'exit 1' HUP INT TERM
	# All is looked at before anything is changed: what somebody else wrote since stays.
	while read -r kind sum len p; do
		[ -f "$root$p" ] && [ "$(cksum <"$root$p")" = "$sum $len" ] || die "$p: was changed since --apply; nothing was changed"
		if [ "$kind" = copy ]; then
			cp -p "$backup/files$p" "$(temp "$root$p")" || die "$p: can't be written; nothing was changed"
			label "$(temp "$root$p")"
			sync "$(temp "$root$p")"
		fi
	done <"$backup/list"
	# In the other order: policy.json first, so that no signature is asked for that can't be found any more.
	sed -n '1!G;h;$p' "$backup/list" >"$backup/undo" || die "$backup/undo: can't be written; nothing was changed"
	while read -r kind sum len p; do
		if [ "$kind" = copy ]; then
			mv -f "$(temp "$root$p")" "$root$p" || die "$p: can't be put back; files before it were"
			label "$root$p"
			say "$p: put back"
		else
			rm -f "$root$p" || die "$p: can't be removed; files before it were put back"
			say "$p: removed"
		fi
	done <"$backup/undo"
	parents "$(paths)"
	mv "$backup/list" "$backup/undone" && rm -f "$backup/undo"
}

discard_undo() {
	[ ! -f "$backup/list" ] || while read -r _ _ _ p; do
		rm -f "$(temp "$root$p")"
	done <"$backup/list"
}

usage() {
	complain "$1"
	complain 'usage: sh THIS [--root DIR] [--dry-run | --check | --apply | --undo]'
	exit 2
}

# All is in functions, and main is the last line: a script that arrives in part does nothing.
main() {
	action=
	while [ $# -gt 0 ]; do
		case $1 in
		--check | --dry-run | --apply | --undo)
			[ -z "$action" ] || usage "$action and $1 exclude each other"
			action=$1
			;;
		--root)
			[ $# -gt 1 ] && [ -d "$2" ] || usage '--root needs a directory'
			root=$(cd "$2" && pwd) || exit 1
			root=${root%/}
			shift
			;;
		*) usage "unknown argument $1" ;;
		esac
		shift
	done
	# Files belong to root. Below another root, whoever is not root can only make files of their own.
	owner=0 group=0
	if [ "$(id -u)" != 0 ]; then
		case $root$action in
		--apply | --undo) die "$action needs root" ;;
		/*) owner=$(id -u) group=$(id -g) ;;
		esac
	fi
	case $action in
	--apply) apply ;;
	--undo) undo ;;
	--check) report list ;;
	*) report diff ;;
	esac
	exit "$status"
}

main "$@" </dev/null
