/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of `lodge`: each takes its arguments (argv[0] is the verb) and returns the exit status. */
#ifndef FRONT_LODGE_LODGE_H
#define FRONT_LODGE_LODGE_H

int lodge_boot(int argc, char **argv);
int lodge_net(int argc, char **argv);
int lodge_connect(int argc, char **argv);
int lodge_fork(int argc, char **argv);
int lodge_autostart(int argc, char **argv);
int lodge_why(int argc, char **argv);
int lodge_wait(int argc, char **argv);

#endif
