# shellcheck shell=sh
# What the tuning scripts share: they print a plan, carry it out with --apply, remember what was there, and put it back with
# --undo. Sourced, not run. Does not know what is tuned.
#
# TUNING_ROOT stands before every path, for tests and for images that are not the running host.

root=${TUNING_ROOT:-}
script=$(basename "$0")
# What was there before, one line each: value<TAB>path<TAB>what it was, or file<TAB>path for one that was not there.
state=$root/var/lib/roomcast-tuning/${script%.sh}.state
tab=$(printf '\t')
apply=no
undo=no
changes=0
failures=0

die() {
  printf '%s: %s\n' "$script" "$*" >&2
  exit 2
}

say() {
  printf '%s\n' "$*"
}

# OPTION: handles what all scripts have; false if it is not among that.
common_option() {
  case $1 in
    --apply) apply=yes ;;
    --undo) undo=yes ;;
    -h | --help) usage && exit 0 ;;
    *) return 1 ;;
  esac
}

# PATH: the first line of a file, without the space around it; false if there is none.
value_of() {
  [ -r "$root$1" ] || return 1
  line=
  # A file that cannot be read although it is there is one that this host has not.
  { IFS= read -r line <"$root$1" || [ -n "$line" ]; } 2>/dev/null || return 1
  printf '%s' "$line"
}

# PATH VALUE: in the form in which two values are compared. The kernel pads masks with zeros.
normal() {
  case $1 in
    *_cpus) printf '%s' "$2" | sed 's/^[0,]*//' ;;
    *) printf '%s' "$2" ;;
  esac
}

is_at() {
  now=$(value_of "$1") && [ "$(normal "$1" "$now")" = "$(normal "$1" "$2")" ]
}

# PATH VALUE: true if it was written and is there now.
write_value() {
  { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null
  is_at "$1" "$2"
}

# LINE: remembers it, unless its path is remembered already: what was there before the first change counts.
remember() {
  kind_and_path=$(printf '%s' "$1" | cut -f1,2)
  mkdir -p "$(dirname "$state")" || die "cannot make $(dirname "$state"); run it as root"
  if ! cut -f1,2 "$state" 2>/dev/null | grep -qxF "$kind_and_path"; then
    printf '%s\n' "$1" >>"$state" || die "cannot write $state; run it as root"
  fi
}

# PATH VALUE NOTE: has the file hold the value.
plan_value() {
  if ! old=$(value_of "$1"); then
    say "  $1: this host has it not${3:+ ($3)}"
    return
  fi
  if is_at "$1" "$2"; then
    say "  $1 = $2 already${3:+ ($3)}"
    return
  fi
  say "  $1: $old -> $2${3:+ ($3)}"
  changes=$((changes + 1))
  [ "$apply" = yes ] || return 0
  remember "value$tab$1$tab$old"
  if ! write_value "$1" "$2"; then
    say "    the kernel does not take it: still $(value_of "$1")"
    failures=$((failures + 1))
  fi
}

# PATH, and its text from standard input: has a file of this text there.
plan_file() {
  text=$(cat)
  if [ -e "$root$1" ]; then
    if [ "$(cat "$root$1")" = "$text" ]; then
      say "  $1 is there already"
      return
    fi
    if ! grep -qxF "file$tab$1" "$state" 2>/dev/null; then
      say "  $1 is there and not from here: move it away first"
      failures=$((failures + 1))
      return
    fi
  fi
  say "  $1:"
  printf '%s\n' "$text" | sed 's/^/    | /'
  changes=$((changes + 1))
  [ "$apply" = yes ] || return 0
  remember "file$tab$1"
  mkdir -p "$(dirname "$root$1")" && printf '%s\n' "$text" >"$root$1" || failures=$((failures + 1))
}

# Puts back what was there, and keeps the memory of what could not be.
undo_all() {
  if [ ! -s "$state" ]; then
    say "There is nothing to undo: $state is not there."
    return
  fi
  rest=$state.rest
  : >"$rest" || die "cannot write $rest; run it as root"
  while IFS= read -r entry; do
    kind=$(printf '%s' "$entry" | cut -f1)
    path=$(printf '%s' "$entry" | cut -f2)
    old=$(printf '%s' "$entry" | cut -f3)
    if [ "$kind" = file ]; then
      say "  $path: removed"
      rm -f "$root$path"
      # A folder that was made for it.
      rmdir "$(dirname "$root$path")" 2>/dev/null || true
    elif write_value "$path" "$old"; then
      say "  $path: $old again"
    else
      say "  $path: the kernel does not take $old"
      printf '%s\n' "$entry" >>"$rest"
      failures=$((failures + 1))
    fi
  done <"$state"
  if [ -s "$rest" ]; then mv "$rest" "$state"; else rm -f "$rest" "$state"; fi
}

# AGAIN: the words to repeat. Ends the script with what to do next; the code is 1 if something could not be done.
finish() {
  if [ "$undo" = yes ]; then
    :
  elif [ "$changes" = 0 ] && [ "$failures" = 0 ]; then
    say "Nothing has to change."
  elif [ "$apply" = yes ]; then
    say "Undo it by: $0 --undo"
  else
    say "Nothing was changed. Do it by: $0 $1--apply"
    say "Then undo it by: $0 --undo"
  fi
  [ "$failures" = 0 ] || exit 1
  exit 0
}

# LIST: its processors as words; dies of what is no list.
expand() {
  case $1 in
    '' | *[!0-9,-]* | *,,* | ,* | *, | *--* | -* | *-) die "$1 is no list of processors, as in 0-3,8" ;;
  esac
  printf '%s\n' "$1" | awk -F, '{
    for (i = 1; i <= NF; i++) {
      parts = split($i, range, "-")
      for (cpu = range[1]; cpu <= range[parts]; cpu++) printf "%d ", cpu
    }
  }'
}

# CPU...: a mask as the kernel reads it, words of 32 bits from the highest.
mask_of() {
  printf '%s\n' "$*" | awk '{
    top = 0
    for (i = 1; i <= NF; i++) {
      word = int($i / 32)
      if (!($i in seen)) bits[word] += 2 ^ ($i % 32)
      seen[$i]
      if (word > top) top = word
    }
    printf "%x", bits[top]
    for (word = top - 1; word >= 0; word--) printf ",%08x", bits[word]
  }'
}

online_cpus() {
  value_of /sys/devices/system/cpu/online || die "cannot read $root/sys/devices/system/cpu/online"
}
