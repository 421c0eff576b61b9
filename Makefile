# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For those whose fingers type make: everything is done by meson and ninja.
BUILD_DIR ?= build
export BUILD_DIR

all: $(BUILD_DIR)/build.ninja
	ninja -C $(BUILD_DIR)

$(BUILD_DIR)/build.ninja:
	./configure

check: all
	meson test -C $(BUILD_DIR) --print-errorlogs

# The random proofs and the fuzzer's mutations, so many times as long.
LONG ?= 5
check-long: all
	THREADBLOCK_LONG=$(LONG) meson test -C $(BUILD_DIR) --suite proof \
	    --suite fuzz --timeout-multiplier $(LONG) --print-errorlogs

install: all
	meson install -C $(BUILD_DIR)

clean:
	rm -rf $(BUILD_DIR)

.PHONY: all check check-long install clean
