/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The launcher's view of the emulator's command line (system/).
 */
#include "qemu/osdep.h"
#include "cmdline.h"

static void test_other_words(void)
{
    char *argv[] = {
        (char *)"qemu", (char *)"-S", (char *)"-frobnicate", (char *)"--help",
        (char *)"-drive", NULL
    };
    g_autoptr(CmdLine) cmd = cmdline_parse(5, argv);

    g_assert_cmpint(cmd->options->len, ==, 4);
    g_assert_true(cmd->wants_text);
    g_assert_null(cmdline_option(cmd, 1)->value);
    g_assert_null(cmdline_option(cmd, 3)->value);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/launcher/other/words", test_other_words);
    return g_test_run();
}
