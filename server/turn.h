/* SPDX-License-Identifier: Apache-2.0 */
/* Taking and passing the turn that engine.h declares. Any thread; NULL is always free. */
#ifndef FATHOM_SERVER_TURN_H
#define FATHOM_SERVER_TURN_H

struct turn;

void turn_take(struct turn *turn);
void turn_pass(struct turn *turn);

#endif
