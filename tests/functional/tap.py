# SPDX-License-Identifier: LGPL-2.1-or-later
"""unittest cases with TAP output, and bounded waits."""
import sys
import time
import unittest

BOUND = 20


def wait_for(condition, what):
    """The first true value of condition(), within BOUND seconds."""
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError('never happened: ' + what)


class TapResult(unittest.TextTestResult):
    def report(self, test, verdict):
        name = test.id().split('.')[-1]
        print(f'{verdict} {self.testsRun} - {name}', flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.report(test, 'ok')

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.report(test, 'not ok')

    def addError(self, test, err):
        super().addError(test, err)
        self.report(test, 'not ok')


def main(case):
    """Run the tests of a TestCase class; never returns."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    print(f'1..{suite.countTestCases()}', flush=True)
    runner = unittest.TextTestRunner(resultclass=TapResult, verbosity=0)
    sys.exit(not runner.run(suite).wasSuccessful())
