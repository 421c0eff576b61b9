/*
 * The text of image infos.  The expected texts are those of stock's tools for
 * images of formats that have much to say.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "block/qapi.h"
#include "qemu/options.h"

static void check(const char *json, const char *expected)
{
    g_autoptr(json_t) info = options_from_json(json, &error_abort);
    g_autofree char *text = bdrv_graph_info_to_text(info);

    g_assert_cmpstr(text, ==, expected);
}

#define FILE_CHILD                                                           \
    "{'name': 'file', 'info': {'children': [], 'filename': 'a.img',"         \
    " 'format': 'file', 'virtual-size': 1048576, 'actual-size': 69632,"      \
    " 'format-specific': {'type': 'file', 'data': {}},"                      \
    " 'dirty-flag': false}}"

static void test_raw(void)
{
    check("{'children': [" FILE_CHILD "], 'filename': 'a.img',"
          " 'format': 'raw', 'virtual-size': 1048576, 'actual-size': 69632,"
          " 'dirty-flag': false}",
          "image: a.img\n"
          "file format: raw\n"
          "virtual size: 1 MiB (1048576 bytes)\n"
          "disk size: 68 KiB\n"
          "Child node '/file':\n"
          "    filename: a.img\n"
          "    protocol type: file\n"
          "    file length: 1 MiB (1048576 bytes)\n"
          "    disk size: 68 KiB\n");
}

static void test_inner_nodes_are_images(void)
{
    check("{'children': [{'name': 'file', 'info': {'children': ["
          " {'name': 'image', 'info': {'children': [], 'filename': 'a',"
          " 'format': 'file', 'virtual-size': 512}}], 'filename': 'b',"
          " 'format': 'blkdebug', 'virtual-size': 512}}],"
          " 'filename': 'b', 'format': 'raw', 'virtual-size': 512}",
          "image: b\n"
          "file format: raw\n"
          "virtual size: 512 B (512 bytes)\n"
          "disk size: unavailable\n"
          "Child node '/file':\n"
          "    image: b\n"
          "    file format: blkdebug\n"
          "    virtual size: 512 B (512 bytes)\n"
          "    disk size: unavailable\n"
          "    Child node '/file/image':\n"
          "        filename: a\n"
          "        protocol type: file\n"
          "        file length: 512 B (512 bytes)\n"
          "        disk size: unavailable\n");
}

static void test_format_specific(void)
{
    check("{'children': [], 'filename': 's.qcow2', 'format': 'qcow2',"
          " 'virtual-size': 1048576, 'actual-size': 221184,"
          " 'cluster-size': 65536, 'encrypted': true, 'dirty-flag': true,"
          " 'format-specific': {'type': 'qcow2', 'data': {'compat': '1.1',"
          " 'lazy-refcounts': false, 'refcount-bits': 16, 'bitmaps':"
          " [{'flags': ['auto'], 'name': 'bm0', 'granularity': 65536}],"
          " 'corrupt': false}}}",
          "image: s.qcow2\n"
          "file format: qcow2\n"
          "virtual size: 1 MiB (1048576 bytes)\n"
          "disk size: 216 KiB\n"
          "encrypted: yes\n"
          "cluster_size: 65536\n"
          "cleanly shut down: no\n"
          "Format specific information:\n"
          "    compat: 1.1\n"
          "    lazy refcounts: false\n"
          "    bitmaps:\n"
          "        [0]:\n"
          "            flags:\n"
          "                [0]: auto\n"
          "            name: bm0\n"
          "            granularity: 65536\n"
          "    refcount bits: 16\n"
          "    corrupt: false\n");
}

#define OVERLAY "'children': [], 'filename': 'o', 'format': 'qcow2',"        \
                " 'virtual-size': 512, 'backing-filename': 'base.img'"
#define OVERLAY_TEXT "image: o\n"                                            \
                     "file format: qcow2\n"                                  \
                     "virtual size: 512 B (512 bytes)\n"                     \
                     "disk size: unavailable\n"

static void test_backing(void)
{
    check("{" OVERLAY ", 'full-backing-filename': 'base.img',"
          " 'backing-filename-format': 'raw'}",
          OVERLAY_TEXT
          "backing file: base.img\n"
          "backing file format: raw\n");
    check("{" OVERLAY ", 'full-backing-filename': 'd/base.img'}",
          OVERLAY_TEXT
          "backing file: base.img (actual path: d/base.img)\n");
    check("{" OVERLAY "}",
          OVERLAY_TEXT
          "backing file: base.img (cannot determine actual path)\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qapi/text/raw", test_raw);
    g_test_add_func("/qapi/text/inner-nodes-are-images",
                    test_inner_nodes_are_images);
    g_test_add_func("/qapi/text/format-specific", test_format_specific);
    g_test_add_func("/qapi/text/backing-file", test_backing);
    return g_test_run();
}
