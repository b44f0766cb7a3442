/* SPDX-License-Identifier: Apache-2.0 */
/* The compute team: runs, barriers, parking, more threads than cores. Also run under ThreadSanitizer. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "model/team.h"
#include "tests/check.h"

enum { MEMBERS_MAX = 65 };

/* What the members of a run write: plain memory, so that a missing barrier is a data race. */
struct board {
	struct team *team;
	int rounds;
	int calls[MEMBERS_MAX];
	long cells[MEMBERS_MAX];
	atomic_int wrong;
};

static struct team *team_of(int threads) {
	char err[256] = "";
	struct team *team = team_create(threads, err, sizeof err);
	CHECK(team != NULL);
	CHECK_INT(team_size(team), threads);
	return team;
}

static void count_call(void *arg, int member) {
	struct board *board = arg;
	board->calls[member]++;
}

/* Every member adds its neighbour's cell of the last round; a reader too early or late is seen. */
static void step_cells(void *arg, int member) {
	struct board *board = arg;
	int members = team_size(board->team);
	for (int round = 0; round < board->rounds; round++) {
		board->cells[member] = round;
		team_barrier(board->team, member);
		for (int other = 0; other < members; other++)
			if (board->cells[other] != round)
				atomic_fetch_add(&board->wrong, 1);
		team_barrier(board->team, member);
	}
}

static void spin_member(void *arg, int member) {
	struct board *board = arg;
	(void)member;
	while (atomic_load(&board->wrong) == 0)
		;
}

static void *spin_until_told(void *arg) {
	struct board *board = arg;
	team_run(board->team, spin_member, board);
	return NULL;
}

static double process_seconds(void) {
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void pause_ms(int ms) {
	struct timespec span = { ms / 1000, ms % 1000 * 1000000L };
	nanosleep(&span, NULL);
}

TEST(every_member_runs_once_per_run) {
	for (int threads = 1; threads <= 5; threads++) {
		struct board board = { .team = team_of(threads) };
		for (int run = 1; run <= 300; run++) {
			team_run(board.team, count_call, &board);
			for (int i = 0; i < threads; i++)
				CHECK_INT(board.calls[i], run);
		}
		team_destroy(board.team);
	}
}

TEST(barriers_keep_rounds_apart) {
	for (int threads = 1; threads <= 4; threads++) {
		struct board board = { .team = team_of(threads), .rounds = 500 };
		for (int run = 0; run < 10; run++)
			team_run(board.team, step_cells, &board);
		CHECK_INT(atomic_load(&board.wrong), 0);
		team_destroy(board.team);
	}
}

/* Several threads share one core: progress must not need two of them at once. */
TEST(many_members_on_one_core_get_through) {
	cpu_set_t before, one;
	CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &before)) {
			CPU_SET(cpu, &one);
			break;
		}
	}
	CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
	struct board board = { .team = team_of(4), .rounds = 300 };
	time_t start = time(NULL);
	team_run(board.team, step_cells, &board);
	CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
	CHECK_INT(atomic_load(&board.wrong), 0);
	CHECK(time(NULL) - start < 60);
	team_destroy(board.team);
}

/* Counters meet in a tree of eights: one level, two full and partly filled, three. */
TEST(more_members_than_cores_get_through) {
	static const int sizes[] = { 8, 9, 16, 17, 63, 64, 65 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct board board = { .team = team_of(sizes[i]), .rounds = 50 };
		for (int run = 0; run < 3; run++)
			team_run(board.team, step_cells, &board);
		CHECK_INT(atomic_load(&board.wrong), 0);
		team_destroy(board.team);
	}
}

TEST(busy_neighbours_do_not_stop_a_team) {
	struct board busy = { .team = team_of(3) };
	struct board board = { .team = team_of(3), .rounds = 300 };
	pthread_t neighbour;
	CHECK_INT(pthread_create(&neighbour, NULL, spin_until_told, &busy), 0);
	time_t start = time(NULL);
	team_run(board.team, step_cells, &board);
	CHECK(time(NULL) - start < 30);
	atomic_store(&busy.wrong, 1);
	pthread_join(neighbour, NULL);
	CHECK_INT(atomic_load(&board.wrong), 0);
	team_destroy(busy.team);
	team_destroy(board.team);
}

static void note_processors(void *arg, int member) {
	struct board *board = arg;
	cpu_set_t mine;
	CHECK(sched_getaffinity(0, sizeof mine, &mine) == 0);
	board->calls[member] = CPU_COUNT(&mine);
	board->cells[member] = sched_getcpu();
}

static int allowed_cpus(int *cpus, int most) {
	cpu_set_t allowed;
	int n = 0;
	CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
	for (int cpu = 0; cpu < CPU_SETSIZE && n < most; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			cpus[n++] = cpu;
	return n;
}

/* On a thread of its own, whose pinning ends with it. */
static void *run_pinned(void *arg) {
	struct board *board = arg;
	int cpus[3], n = allowed_cpus(cpus, 3);
	char err[256] = "";
	board->team = team_create_pinned(3, cpus, n, err, sizeof err);
	CHECK(board->team != NULL);
	team_run(board->team, note_processors, board);
	for (int i = 0; i < 3; i++) {
		CHECK_INT(board->calls[i], 1);
		CHECK_INT(board->cells[i], cpus[i % n]);
	}
	team_destroy(board->team);
	return NULL;
}

TEST(pinned_members_stay_on_their_processors) {
	struct board board = { .rounds = 0 };
	pthread_t thread;
	CHECK_INT(pthread_create(&thread, NULL, run_pinned, &board), 0);
	pthread_join(thread, NULL);
}

TEST(members_that_are_not_pinned_may_use_all_processors) {
	struct board board = { .team = team_of(3) };
	int cpus[1024], n = allowed_cpus(cpus, 1024);
	team_run(board.team, note_processors, &board);
	for (int i = 0; i < 3; i++)
		CHECK_INT(board.calls[i], n);
	team_destroy(board.team);
}

TEST(an_idle_team_uses_no_processor_time) {
	struct board board = { .team = team_of(3) };
	team_run(board.team, count_call, &board);
	pause_ms(50);
	double used = 1;
	for (int i = 0; i < 20 && used >= 0.05; i++) { /* until all have parked */
		double before = process_seconds();
		pause_ms(300);
		used = process_seconds() - before;
	}
	CHECK(used < 0.05);
	team_run(board.team, count_call, &board);
	for (int i = 0; i < 3; i++)
		CHECK_INT(board.calls[i], 2);
	team_destroy(board.team);
}

TEST(a_parked_team_can_be_destroyed) {
	struct team *team = team_of(3);
	pause_ms(20);
	team_destroy(team);
}

TEST(a_spinning_team_can_be_destroyed) {
	for (int i = 0; i < 50; i++) {
		struct board board = { .team = team_of(3) };
		if (i % 2)
			team_run(board.team, count_call, &board);
		team_destroy(board.team);
	}
	team_destroy(NULL);
}

static void slow_member(void *arg, int member) {
	struct board *board = arg;
	if (member == 1)
		pause_ms(30);
	board->cells[member] = 1;
	team_barrier(board->team, member);
	for (int i = 0; i < team_size(board->team); i++)
		if (board->cells[i] != 1)
			atomic_fetch_add(&board->wrong, 1);
}

/* The others park inside the barrier and are woken. */
TEST(a_barrier_waits_for_a_slow_member) {
	struct board board = { .team = team_of(3) };
	team_run(board.team, slow_member, &board);
	CHECK_INT(atomic_load(&board.wrong), 0);
	team_destroy(board.team);
}

TEST(shares_cover_everything_once_and_evenly) {
	for (int items = 0; items <= 40; items++) {
		for (int members = 1; members <= 9; members++) {
			int next = 0, least = items, most = 0;
			for (int member = 0; member < members; member++) {
				int first, end;
				team_share(items, member, members, &first, &end);
				CHECK_INT(first, next);
				CHECK(end >= first);
				least = end - first < least ? end - first : least;
				most = end - first > most ? end - first : most;
				next = end;
			}
			CHECK_INT(next, items);
			CHECK(most - least <= 1);
		}
	}
}

enum { ITEMS = 97, DEALINGS = 400 };

struct deal_board {
	struct team *team;
	int claim, slow;     /* the member that waits in a claim until all is dealt; -1: none */
	int taken[ITEMS];    /* claims that had the item, in all dealings */
	int of[MEMBERS_MAX]; /* items that a member has had */
	atomic_int dealt;    /* items that somebody has had in a dealing with a slow member */
};

/* Plain memory: an item that two members had would be a data race besides a wrong count. */
static void deal_items(void *arg, int member) {
	struct deal_board *board = arg;
	for (int round = 0; round < (board->slow < 0 ? DEALINGS : 1); round++) {
		struct dealing dealing;
		int first, end;
		team_deal(board->team, member, ITEMS, board->claim, &dealing);
		while (team_claim(&dealing, &first, &end)) {
			CHECK(0 <= first && first < end && end <= ITEMS);
			CHECK(end - first <= board->claim);
			for (int i = first; i < end; i++)
				board->taken[i]++;
			board->of[member] += end - first;
			if (board->slow < 0)
				continue;
			atomic_fetch_add(&board->dealt, end - first);
			for (int ms = 0; member == board->slow && ms < 20000; ms++) {
				if (atomic_load(&board->dealt) == ITEMS)
					break;
				pause_ms(1);
			}
		}
		team_barrier(board->team, member);
	}
}

TEST(dealing_gives_every_item_to_one_member) {
	static const int claims[] = { 1, 3, 8, 200 };
	for (int threads = 1; threads <= 5; threads++) {
		for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
			struct deal_board board = {
				.team = team_of(threads), .claim = claims[i], .slow = -1
			};
			team_run(board.team, deal_items, &board);
			for (int item = 0; item < ITEMS; item++)
				CHECK_INT(board.taken[item], DEALINGS);
			team_destroy(board.team);
		}
	}
}

TEST(what_a_slow_member_has_left_is_dealt_to_others) {
	struct deal_board board = { .team = team_of(3), .claim = 2, .slow = 1 };
	team_run(board.team, deal_items, &board);
	for (int item = 0; item < ITEMS; item++)
		CHECK_INT(board.taken[item], 1);
	CHECK(board.of[1] <= 2); /* what it held while the others had all else */
	team_destroy(board.team);
}
