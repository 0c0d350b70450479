// POST /api/jobs/document-processing: adds the job and answers as Hookline does.
import { InjectQueue } from '@nestjs/bullmq';
import { Body, Controller, ForbiddenException, Post, Req, Res, UseGuards } from '@nestjs/common';
import type { Queue } from 'bullmq';
import type { FastifyReply } from 'fastify';
import { DocumentJob } from './document-job.dto.js';
import { JwtGuard, type SignedIn } from './jwt.guard.js';

interface Created {
  jobId: string;
  queueName: string;
  name: string;
  state: string;
}

@Controller('api/jobs')
@UseGuards(JwtGuard)
export class JobsController {
  constructor(@InjectQueue('document-processing') private readonly queue: Queue<DocumentJob>) {}

  @Post('document-processing')
  async create(@Body() body: DocumentJob, @Req() request: SignedIn, @Res({ passthrough: true }) reply: FastifyReply): Promise<Created> {
    if ((request.user.role ?? 'user') === 'user' && body.userId !== request.user.sub) throw new ForbiddenException("userId is not the token's sub");
    const job = await this.queue.add('process-document', body);
    reply.header('Location', `/api/jobs/status/document-processing/${job.id}`);
    return { jobId: job.id!, queueName: 'document-processing', name: job.name, state: 'waiting' };
  }
}
