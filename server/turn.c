/* SPDX-License-Identifier: Apache-2.0 */
/* The turn: two engines use one compute team step by step. A ticket lock, so that neither waits for
 * more than one step of the other. */
#include <pthread.h>
#include <stdlib.h>

#include "server/engine.h"
#include "server/turn.h"

struct turn {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned long next, serving; /* under lock */
};

struct turn *turn_create(void) {
	struct turn *turn = calloc(1, sizeof *turn);
	if (!turn)
		return NULL;
	if (pthread_mutex_init(&turn->lock, NULL) != 0) {
		free(turn);
		return NULL;
	}
	if (pthread_cond_init(&turn->changed, NULL) != 0) {
		pthread_mutex_destroy(&turn->lock);
		free(turn);
		return NULL;
	}
	return turn;
}

void turn_destroy(struct turn *turn) {
	if (!turn)
		return;
	pthread_cond_destroy(&turn->changed);
	pthread_mutex_destroy(&turn->lock);
	free(turn);
}

void turn_take(struct turn *turn) {
	if (!turn)
		return;
	pthread_mutex_lock(&turn->lock);
	unsigned long mine = turn->next++;
	while (turn->serving != mine)
		pthread_cond_wait(&turn->changed, &turn->lock);
	pthread_mutex_unlock(&turn->lock);
}

void turn_pass(struct turn *turn) {
	if (!turn)
		return;
	pthread_mutex_lock(&turn->lock);
	turn->serving++;
	pthread_cond_broadcast(&turn->changed);
	pthread_mutex_unlock(&turn->lock);
}
