#!/usr/bin/env bats
# The console as other people's VNC clients see it: TigerVNC's viewer on a virtual X screen, gvnccapture, vncsnapshot.

load ../guest/common

setup_file() { setup_file_common; }

setup() {
	console=$BATS_TEST_TMPDIR/console
	export HOME=$BATS_TEST_TMPDIR LODGE_HOME=$BATS_TEST_TMPDIR/lodge
	port=$(free_port)
	VBoxManage createvm --name vm --ostype Linux26_64 --register
	VBoxManage modifyvm vm --memory 128 --uart1 0x3f8 4 --uartmode1 file "$console" --vrde on --vrdeport "$port"
	VBoxManage storagectl vm --name IDE --add ide
	VBoxManage storageattach vm --storagectl IDE --port 1 --device 0 --type dvddrive --medium "$ISO"
	unset DISPLAY
}

teardown() {
	VBoxManage controlvm vm poweroff >/dev/null 2>&1 || true
	[[ -z ${viewer:-} ]] || kill "$viewer" 2>/dev/null || true
	[[ -z ${x:-} ]] || kill "$x" 2>/dev/null || true
}

wait_for_guest() { wait_for 150 grep -qs LODGE-GUEST-READY "$console" && sleep 2; }

# An X server of our own in $DISPLAY.
start_x() {
	Xvfb -displayfd 5 -screen 0 1024x768x24 5>"$BATS_TEST_TMPDIR/display" >/dev/null 2>&1 3>&- &
	x=$!
	wait_for 20 test -s "$BATS_TEST_TMPDIR/display"
	DISPLAY=:$(cat "$BATS_TEST_TMPDIR/display")
	export DISPLAY
}

title='vm - TigerVNC'
window_is_there() { xdotool search --onlyvisible --name "$title" >/dev/null 2>&1; }

# The window's keyboard is the guest's: what is typed comes out of its serial port.
type_into_window() {
	wait_for 30 window_is_there
	# There is no window manager to give the window the focus.
	xdotool windowfocus "$(xdotool search --onlyvisible --name "$title" | head -n 1)"
	sleep 1
	xdotool type --delay 100 "echo TYPED-\$((6*7)) \"A~|\" >/dev/ttyS0"
	xdotool key Return
	wait_for 30 grep -q 'TYPED-42 A~|' "$console" || { show "$console"; return 1; }
}

# The cursor blinks, and would be in one picture and not in the other.
hide_cursor() {
	VBoxManage controlvm vm keyboardputstring "printf '\\033[?25l'"
	VBoxManage controlvm vm keyboardputscancode 1c 9c
	sleep 3
}

capture() {
	timeout 30 gvnccapture -q "127.0.0.1:$((port - 5900))" "$BATS_TEST_TMPDIR/seen.png" &&
		pngtopnm "$BATS_TEST_TMPDIR/seen.png" >"$BATS_TEST_TMPDIR/seen.ppm"
}

@test "gvnccapture's picture is the screenshot's, pixel by pixel" {
	VBoxManage startvm vm --type headless
	wait_for_guest
	hide_cursor
	VBoxManage controlvm vm screenshotpng "$BATS_TEST_TMPDIR/own.png"
	capture
	pngtopnm "$BATS_TEST_TMPDIR/own.png" | cmp - "$BATS_TEST_TMPDIR/seen.ppm"
}

@test "vncsnapshot gets a picture with the password and none without" {
	VBoxManage modifyvm vm --vrdeproperty VNCPassword=secret
	VBoxManage startvm vm --type headless
	echo secret | vncpasswd -f >"$BATS_TEST_TMPDIR/good"
	echo wrong | vncpasswd -f >"$BATS_TEST_TMPDIR/bad"
	wait_for_guest
	timeout 30 vncsnapshot -quiet -passwd "$BATS_TEST_TMPDIR/good" "127.0.0.1:$((port - 5900))" "$BATS_TEST_TMPDIR/seen.jpg"
	VBoxManage controlvm vm screenshotpng "$BATS_TEST_TMPDIR/own.png"
	pngtopnm "$BATS_TEST_TMPDIR/own.png" >"$BATS_TEST_TMPDIR/own.ppm"
	jpegtopnm "$BATS_TEST_TMPDIR/seen.jpg" >"$BATS_TEST_TMPDIR/seen.ppm"
	pnmpsnr -machine "$BATS_TEST_TMPDIR/own.ppm" "$BATS_TEST_TMPDIR/seen.ppm" >"$BATS_TEST_TMPDIR/psnr" # Y Cb Cr, dB
	cat "$BATS_TEST_TMPDIR/psnr"
	awk '{ exit !($1 == "nomatch" ? 0 : $1 == "inf" || $1 > 25) }' "$BATS_TEST_TMPDIR/psnr"
	run timeout 30 vncsnapshot -quiet -passwd "$BATS_TEST_TMPDIR/bad" "127.0.0.1:$((port - 5900))" "$BATS_TEST_TMPDIR/no.jpg"
	[ "$status" -ne 0 ]
	[ ! -s "$BATS_TEST_TMPDIR/no.jpg" ]
}

@test "TigerVNC's viewer asks for the password and brings keys to the guest" {
	VBoxManage modifyvm vm --vrdeproperty VNCPassword=secret
	VBoxManage startvm vm --type headless
	wait_for_guest
	start_x
	echo secret | vncpasswd -f >"$BATS_TEST_TMPDIR/good"
	xtigervncviewer -passwd "$BATS_TEST_TMPDIR/good" "127.0.0.1::$port" >"$BATS_TEST_TMPDIR/viewer" 2>&1 3>&- &
	viewer=$!
	type_into_window
}

@test "startvm --type gui opens the console in a viewer, also of a machine whose console was off" {
	VBoxManage modifyvm vm --vrde off
	start_x
	run VBoxManage startvm vm --type gui
	[ "$status" -eq 0 ]
	[[ $output == *'has been successfully started.' ]]
	wait_for_guest
	type_into_window
}
