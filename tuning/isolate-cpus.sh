#!/bin/sh
# Gives processors to roomcast alone, by files for systemd: roomcast gets a slice of its own with these processors, and all
# other services, users' sessions and systemd itself keep to the rest. With --boot also the kernel keeps away, by its command
# line. README.md says when this is not worth it. Undo by --undo.
set -eu
# shellcheck source=tuning/lib.sh
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<'TEXT'
isolate-cpus.sh --cpus LIST [--boot [--nohz-full]] [--apply]
isolate-cpus.sh --undo

Prints what it would do; --apply does it, --undo puts back what was there.
  --cpus LIST   the processors of roomcast's cores, as in 2-7; at least one must be left for all else
  --boot        also the kernel's command line, by /etc/default/grub.d
  --nohz-full   also no timer ticks on them; costs each call to the kernel some 100 ns, of which roomcast makes many
TEXT
}

cpus=
boot=no
nohz=no
again=
while [ $# -gt 0 ]; do
  case $1 in
    --cpus)
      [ $# -ge 2 ] || die "$1 wants a value; see --help"
      cpus=$2
      again="$again$1 $2 "
      shift
      ;;
    --boot) boot=yes && again="$again$1 " ;;
    --nohz-full) nohz=yes && again="$again$1 " ;;
    *) common_option "$1" || die "there is no option $1; see --help" ;;
  esac
  shift
done

load() {
  say "Put it in force by:"
  say "  systemctl daemon-reload && systemctl restart roomcast"
}

if [ "$undo" = yes ]; then
  grubbed=no
  grep -qs grub.d "$state" && grubbed=yes
  undo_all
  load
  [ "$grubbed" = no ] || say "  update-grub && reboot"
  finish ''
fi
[ -n "$cpus" ] || die "--cpus is missing; see --help"
[ "$nohz" = no ] || [ "$boot" = yes ] || die "--nohz-full is a part of --boot"
ours=" $(expand "$cpus")"
rest=
online=$(online_cpus)
for cpu in $(expand "$online"); do
  case $ours in
    *" $cpu "*) ;;
    *) rest="$rest${rest:+,}$cpu" ;;
  esac
done
for cpu in $ours; do
  case " $(expand "$online")" in
    *" $cpu "*) ;;
    *) die "processor $cpu is not online: $online are" ;;
  esac
done
[ -n "$rest" ] || die "--cpus $cpus leaves no processor for all else; $online are online"

say "Processors $cpus for roomcast, $rest for all else:"
plan_file /etc/systemd/system/roomcast.slice <<TEXT
# By isolate-cpus.sh of roomcast; undo by isolate-cpus.sh --undo.
[Slice]
AllowedCPUs=$cpus
TEXT
for unit in roomcast.service roomcast@.service; do
  plan_file "/etc/systemd/system/$unit.d/50-cpus.conf" <<TEXT
# By isolate-cpus.sh of roomcast; undo by isolate-cpus.sh --undo.
[Service]
Slice=roomcast.slice
TEXT
done
for unit in system.slice user.slice init.scope; do
  section=Slice
  [ "$unit" = init.scope ] && section=Scope
  plan_file "/etc/systemd/system/$unit.d/50-roomcast.conf" <<TEXT
# By isolate-cpus.sh of roomcast; undo by isolate-cpus.sh --undo.
[$section]
AllowedCPUs=$rest
TEXT
done
if [ "$boot" = yes ]; then
  line="isolcpus=domain,managed_irq,$cpus rcu_nocbs=$cpus irqaffinity=$rest"
  [ "$nohz" = no ] || line="$line nohz_full=$cpus"
  plan_file /etc/default/grub.d/90-roomcast.cfg <<TEXT
# By isolate-cpus.sh of roomcast; undo by isolate-cpus.sh --undo, then update-grub and reboot.
GRUB_CMDLINE_LINUX_DEFAULT="\$GRUB_CMDLINE_LINUX_DEFAULT $line"
TEXT
fi
load
[ "$boot" = no ] || say "  update-grub && reboot"
finish "$again"
